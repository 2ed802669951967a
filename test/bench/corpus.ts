import type { NewRecord } from '../../processor/contract/record.ts'
import { writeRecord } from '../../processor/contract/write.ts'
import { loadDeviceId } from '../../simulators/load/load-connection.ts'
import { type Random, seededRandom } from '../../simulators/random.ts'

const SEED = 42

/** One record of a load: which device speaks, and what it says. `turn` counts the records of that device, from 0. */
interface Spoken {
  readonly i: number
  readonly turn: number
  readonly at: number
  readonly random: Random
}

/** A kind of device, by what its messages look like. */
interface Shape {
  readonly says: (spoken: Spoken) => unknown
  /** Statuses and messages of this shape are so large that fewer records tell as much: one in this many. */
  readonly scale?: number
  /** The first record of a device is followed by what people say of it. */
  readonly attributes?: boolean
}

const numbers = ({ random }: Spoken): Record<string, number> => ({
  temperature: reading(random, 3),
  humidity: 45.2,
  pressure: 1013.2,
  battery: 87,
  rssi: -61,
})
const metrics = (count: number) => (spoken: Spoken) =>
  Object.fromEntries(Array.from({ length: count }, (_, k) => [`metric${k}`, reading(spoken.random, 2)]))

/** What fleets send. Devices come in random order, skewed as Zipf's law with the exponent 0.5. */
export const SHAPES: Readonly<Record<string, Shape>> = {
  numbers: { says: (spoken) => ({ ts: spoken.at, seq: spoken.turn, values: numbers(spoken) }) },
  texts: {
    says: ({ random }) => ({
      temperature: reading(random, 2),
      humidity: reading(random, 1),
      door: random() < 0.5,
      state: random() < 0.5 ? 'running' : 'idle',
      fw: '1.4.2',
    }),
  },
  position: {
    says: ({ random }) => ({
      speed: reading(random, 1),
      pos: { lat: 32 + reading(random, 5), lon: reading(random, 5) },
      driver: 'k-17',
    }),
  },
  partial: { says: ({ random }) => ({ [`metric${Math.floor(random() * 10)}`]: reading(random, 2) }) },
  gaps: {
    // A device loses one message in four, and starts to count anew after fifty.
    says: (spoken) => {
      const seq = Math.floor((spoken.turn % 50) * 1.25)
      return { ts: spoken.at, seq, values: numbers(spoken) }
    },
  },
  escapes: {
    says: ({ random }) => ({
      temperature: reading(random, 2),
      message: `line ${Math.floor(random() * 100)}\n"quoted" \\ ${random() < 0.5 ? 'größer' : '温度'}`,
      größe: reading(random, 1),
    }),
  },
  arrays: {
    says: ({ random }) => ({
      spectrum: Array.from({ length: 8 }, () => reading(random, 1)),
      tags: ['a', 'b'],
      temperature: reading(random, 2),
    }),
  },
  readings: {
    says: (spoken) =>
      Array.from({ length: 5 }, (_, k) => ({
        ts: spoken.at - 4 + k,
        seq: spoken.turn * 5 + k,
        values: { temperature: reading(spoken.random, 2), battery: 87 },
      })),
  },
  attributes: { says: (spoken) => ({ ts: spoken.at, seq: spoken.turn, values: numbers(spoken) }), attributes: true },
  'metrics-20': { says: metrics(20), scale: 2 },
  'metrics-100': { says: metrics(100), scale: 10 },
}

/** The first `count` records of a load of one shape over `devices` devices, the same in each run. */
export function* corpus(name: string, count: number, devices: number, prefix: string): Generator<NewRecord> {
  const { says, attributes = false } = SHAPES[name] as Shape
  const random = seededRandom(SEED, Object.keys(SHAPES).indexOf(name))
  const turns = new Uint32Array(devices)
  const began = Date.now()
  for (let i = 0; i < count; i++) {
    const device = Math.floor(devices * random() ** 2)
    const turn = (turns[device] as number)++
    const key = loadDeviceId(prefix, device)
    const timestamp = began + Math.floor(i / 100)
    if (attributes && turn === 1) {
      const said = { site: `k${device % 500}`, type: `t${device % 5}`, owner: 'Müller & Söhne' }
      yield writeRecord(
        key,
        { kind: 'attributes', operation: 'replace', attributes: said, ifMatch: undefined },
        timestamp,
      )
      continue
    }
    const value = Buffer.from(JSON.stringify(says({ i, turn, at: timestamp, random })))
    yield { key, value, timestamp, headers: undefined }
  }
}

function reading(random: Random, digits: number): number {
  return Number((20 + random() * 10).toFixed(digits))
}
