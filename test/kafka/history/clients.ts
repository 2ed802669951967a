import { pause } from '../../../processor/runtime/pause.ts'
import type { Random } from '../../../simulators/random.ts'
import type { Api, Asked, Asker } from './asker.ts'
import type { Gateway } from './gateway.ts'
import type { Holding, Write } from './history.ts'

/** Devices of the gateway, which clients write to. */
const RACED = ['raced-0', 'raced-1', 'raced-2']
/** And some that they delete, too. */
const PASSING = ['passing-0', 'passing-1', 'passing-2', 'passing-3']
/** What is asked of the fleet; undefined: all. */
export const QUERIES = [
  undefined,
  'attributes.team:red',
  'reported.load:>1',
  'attributes.team:red OR reported.load:>1',
  'NOT attributes.team:blue AND connectivity.state:online',
]
const SORTS = [undefined, '-rev', 'attributes.team']
const WAITS = [undefined, 'wait=1', 'wait=5']
const TEAMS = ['red', 'blue', 'green']
/** Longest time that a client thinks before it asks again, ms. */
const WRITER_THINKS_MS = 40
const READER_THINKS_MS = 20

/** Clients that read and write what they will, decided by `random` alone. */
export class Clients {
  /** Sets of writes that asked for the same version at once, and reads of a write at another process. */
  races = 0
  ownReads = 0
  readonly #asker: Asker
  readonly #gateway: Gateway
  readonly #apis: readonly [Api, Api]
  readonly #reporting: readonly string[]

  /** `reporting`: devices that report all the time. */
  constructor(asker: Asker, gateway: Gateway, apis: readonly [Api, Api], reporting: readonly string[]) {
    this.#asker = asker
    this.#gateway = gateway
    this.#apis = apis
    this.#reporting = reporting
    for (const deviceId of [...RACED, ...PASSING]) gateway.say(deviceId)
  }

  get devices(): readonly string[] {
    return [...RACED, ...PASSING, ...this.#reporting]
  }

  /** A client that has the process `home` for its own. */
  async writer(home: 0 | 1, random: Random, signal: AbortSignal): Promise<void> {
    const [own, other] = [this.#apis[home], this.#apis[1 - home] as Api]
    while (!signal.aborted) {
      await pause(random() * WRITER_THINKS_MS, signal)
      const kind = random()
      if (kind < 0.1)
        await this.#asker.write(own, pick(random, this.#reporting), this.#change(random, false, undefined))
      else await this.#writeGateways(kind < 0.55 ? RACED : PASSING, own, other, random)
    }
  }

  async #writeGateways(devices: readonly string[], own: Api, other: Api, random: Random): Promise<void> {
    const deviceId = pick(random, devices)
    const asker = this.#asker
    const condition = random()
    let ifMatch = condition < 0.1 ? '*' : undefined
    if (condition > 0.35) {
      await asker.get(random() < 0.5 ? own : other, deviceId, random() < 0.5 ? asker.positionOf(deviceId) : undefined)
      const tag = asker.tagOf(deviceId)
      ifMatch = random() < 0.2 ? tag?.replace(/^W\/"(\d+)-.*$/, '"$1"') : tag
    }
    const change = (): Asked => this.#change(random, devices === PASSING, ifMatch)
    let writes: Write[]
    if (condition > 0.65 && ifMatch !== undefined) {
      this.races++
      const rivals = [own, other, random() < 0.5 ? own : other]
      writes = await Promise.all(rivals.map((api) => asker.write(api, deviceId, change())))
    } else writes = [await asker.write(own, deviceId, change())]
    // Which of its writes a client knows nothing of it asks for again: with the condition that is no harm.
    if (ifMatch !== undefined && writes.some(({ completion }) => completion.type === 'info')) {
      await asker.write(other, deviceId, change())
    }
    const placed = writes.find(({ offset }) => offset !== undefined)
    if (placed !== undefined && random() < 0.6) {
      this.ownReads++
      await asker.get(other, deviceId, placed.offset)
    }
    if (random() < 0.3 || writes.some(wasUnknown)) this.#gateway.say(deviceId)
  }

  #change(random: Random, mayDelete: boolean, ifMatch: string | undefined): Asked {
    const method = mayDelete && random() < 0.25 ? 'DELETE' : random() < 0.5 ? 'PUT' : 'PATCH'
    return { method, attributes: { team: pick(random, TEAMS) }, ifMatch, prefer: pick(random, WAITS) }
  }

  /** A client of one process. */
  async reader(home: 0 | 1, random: Random, signal: AbortSignal): Promise<void> {
    const api = this.#apis[home]
    const asker = this.#asker
    while (!signal.aborted) {
      await pause(random() * READER_THINKS_MS, signal)
      const kind = random()
      const deviceId = pick(random, this.devices)
      if (kind < 0.55) await asker.get(api, deviceId, random() < 0.2 ? asker.positionOf(deviceId) : undefined)
      else if (kind < 0.75) await asker.batchGet(api, this.devices)
      else if (kind < 0.87) await asker.list(api, pick(random, QUERIES), pick(random, SORTS))
      else if (kind < 0.95) await asker.count(api, pick(random, QUERIES))
      else await asker.summarize(api, pick(random, QUERIES))
    }
  }

  /** Everything once more, through both, when all is at rest: what the lists hold then. */
  async finish(): Promise<Holding[]> {
    const holdings: Holding[] = []
    for (const api of this.#apis) {
      await this.#asker.batchGet(api, this.devices)
      for (const q of QUERIES) {
        const answers = (await this.#asker.list(api, q, undefined)) ?? []
        const devices = new Map(answers.map(({ deviceId, text }) => [deviceId, text as string]))
        holdings.push({ holder: `list of ${q ?? 'all'} at ${api.port}`, q, deviceId: undefined, devices })
        await this.#asker.count(api, q)
        await this.#asker.summarize(api, q)
      }
    }
    return holdings
  }
}

function wasUnknown({ completion, token }: Write): boolean {
  if (completion.type !== 'ok') return false
  return completion.outcome === 'unknown-device' || (token === undefined && completion.outcome === 'applied')
}

function pick<T>(random: Random, of: readonly T[]): T {
  return of[Math.floor(random() * of.length)] as T
}
