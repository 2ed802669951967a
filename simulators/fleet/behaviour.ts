import type { JsonObject } from '../../processor/contract/json.ts'
import { type Random, seededRandom } from '../random.ts'
import { type Model, PROFILES, type Profile } from './profiles.ts'

/** How a fleet misbehaves, as real ones do. Shares are from 0 to 1; the seed decides everything. */
export interface Behaviour {
  /** Share of devices on a bad network: their connection breaks, without a DISCONNECT, about every 20 messages. */
  readonly flaky: number
  /** Share of devices that sleep: they collect 5 to 20 readings, send them at once, and disconnect cleanly. */
  readonly sleepy: number
  /** Share of messages that are sent after the one that follows them. */
  readonly outOfOrder: number
  /** Share of messages that are sent twice. */
  readonly duplicates: number
  /** Share of devices whose clock is wrong: by hours ahead, a day behind, or at 1970. */
  readonly skew: number
  /** Share of messages that are followed by a payload that nobody can read. */
  readonly mistakes: number
  /** Share of devices whose firmware is changed in the run: a metric gets another name, and new ones come. */
  readonly firmware: number
  /** Share of devices with a last will: the metric `lastWill`. */
  readonly wills: number
  /** Exponent of a Zipf law of who speaks how often: 0, all alike; 1, of 1,000 devices one says 13 % of all. */
  readonly hot: number
  /** Devices on one connection: from 2 on, gateways speak for them. */
  readonly gateway: number
}

export const WELL_BEHAVED: Behaviour = {
  flaky: 0,
  sleepy: 0,
  outOfOrder: 0,
  duplicates: 0,
  skew: 0,
  mistakes: 0,
  firmware: 0,
  wills: 0,
  hot: 0,
  gateway: 1,
}

const MESSAGES_BETWEEN_DROPS = 20
const MIN_COLLECTED = 5
const MAX_COLLECTED = 20
const MIN_MESSAGES_OF_FIRMWARE = 5
const MAX_MESSAGES_OF_FIRMWARE = 30
const HOUR_MS = 3_600_000

/** Payloads that no device should send, and some do. */
const MISTAKES: readonly string[] = [
  '{"temperature": 21.',
  'NaN',
  '"on"',
  '[]',
  '{"values":{"temperature":1},"seq":-1}',
  `{"${'n'.repeat(200)}":1}`,
  `${'{"a":'.repeat(20)}1${'}'.repeat(20)}`,
]

/** What a device does next. `messages`: how many the payload holds; 0: it cannot be read. */
export type Act =
  | { readonly kind: 'say'; readonly payload: string; readonly messages: number; readonly repeated: boolean }
  | { readonly kind: 'drop' }
  | { readonly kind: 'sleep' }

/** The behaviour of one device. Pure but for its random: the same random gives the same acts for the same readings. */
export class Manners {
  readonly hasWill: boolean
  /** Error of the device's clock, ms; undefined: its clock starts at 1970. */
  readonly #clockError: number | undefined
  readonly #behaviour: Behaviour
  readonly #random: Random
  readonly #flaky: boolean
  readonly #newFirmwareAfter: number
  readonly #updates: boolean
  /** Readings that a sleeping device collects before it sends; 0: it does not sleep. */
  readonly #collects: number
  #collected: Act[] = []
  #held: Act | undefined
  #readings = 0

  constructor(behaviour: Behaviour, random: Random) {
    // All are drawn always, so that one dial does not change the effect of another.
    const [flaky, sleepy, skew, firmware, will] = [random(), random(), random(), random(), random()]
    const [collects, updatesAfter, error] = [random(), random(), random()]
    this.#behaviour = behaviour
    this.#random = random
    this.#flaky = flaky < behaviour.flaky
    this.#collects =
      sleepy < behaviour.sleepy ? MIN_COLLECTED + Math.floor(collects * (MAX_COLLECTED - MIN_COLLECTED + 1)) : 0
    this.#clockError = skew < behaviour.skew ? wrong(error) : 0
    this.#updates = firmware < behaviour.firmware
    const span = MAX_MESSAGES_OF_FIRMWARE - MIN_MESSAGES_OF_FIRMWARE
    this.#newFirmwareAfter = MIN_MESSAGES_OF_FIRMWARE + Math.floor(updatesAfter * span)
    this.hasWill = will < behaviour.wills
  }

  /** The time by the device's clock, epoch ms. */
  clock(now: number): number {
    return this.#clockError === undefined ? now % HOUR_MS : now + this.#clockError
  }

  /** The reading as the device's firmware sends it. */
  dress(values: JsonObject): JsonObject {
    if (!this.#updates) return values
    if (this.#readings < this.#newFirmwareAfter) return { ...values, firmware: '1.4.2' }
    const { battery, ...rest } = values
    const power = battery === undefined ? {} : { power: { battery } }
    return { ...rest, ...power, firmware: '2.0.0', uptime: this.#readings - this.#newFirmwareAfter }
  }

  /** The acts that follow a reading of `messages` messages; messages may be held back, and follow later. */
  acts(payload: string, messages: number): Act[] {
    this.#readings++
    const { outOfOrder, duplicates, mistakes } = this.#behaviour
    const said: Act = { kind: 'say', payload, messages, repeated: false }
    const acts: Act[] = []
    if (this.#held === undefined && this.#random() < outOfOrder) this.#held = said
    else {
      acts.push(said)
      if (this.#held !== undefined) acts.push(this.#held)
      this.#held = undefined
      if (this.#random() < duplicates) acts.push({ ...said, repeated: true })
    }
    if (this.#random() < mistakes) acts.push(this.#mistake())
    if (this.#flaky && this.#random() < 1 / MESSAGES_BETWEEN_DROPS) acts.push({ kind: 'drop' })
    return this.#collects === 0 ? acts : this.#collect(acts)
  }

  /** The acts that are still held back at the end. */
  rest(): Act[] {
    const rest = this.#held === undefined ? this.#collected : [...this.#collected, this.#held]
    this.#held = undefined
    this.#collected = []
    return rest
  }

  #collect(acts: readonly Act[]): Act[] {
    this.#collected.push(...acts)
    if (this.#readings % this.#collects !== 0) return []
    const burst: Act[] = [...this.#collected, { kind: 'sleep' }]
    this.#collected = []
    return burst
  }

  #mistake(): Act {
    const payload = MISTAKES[Math.floor(this.#random() * MISTAKES.length)] as string
    return { kind: 'say', payload, messages: 0, repeated: false }
  }
}

/** `draw`: from 0 to 1. */
function wrong(draw: number): number | undefined {
  if (draw < 0.2) return undefined
  return draw < 0.6 ? (1 + draw * 10) * HOUR_MS : -24 * HOUR_MS
}

/** Draws indexes below `size` by Zipf's law with `exponent`; `random` decides which are the frequent ones. */
export class Zipf {
  readonly #sums: Float64Array
  readonly #order: Uint32Array

  constructor(size: number, exponent: number, random: Random) {
    this.#sums = new Float64Array(size)
    let sum = 0
    for (let rank = 0; rank < size; rank++) {
      sum += 1 / (rank + 1) ** exponent
      this.#sums[rank] = sum
    }
    this.#order = Uint32Array.from({ length: size }, (_, i) => i)
    for (let i = size - 1; i > 0; i--) {
      const j = Math.floor(random() * (i + 1))
      const held = this.#order[i] as number
      this.#order[i] = this.#order[j] as number
      this.#order[j] = held
    }
  }

  /** `draw`: from 0 to 1. */
  pick(draw: number): number {
    const sums = this.#sums
    const target = draw * (sums.at(-1) as number)
    let low = 0
    let high = sums.length - 1
    while (low < high) {
      const middle = (low + high) >> 1
      if ((sums[middle] as number) > target) high = middle
      else low = middle + 1
    }
    return this.#order[low] as number
  }
}

/**
 * One simulated device, apart from its connection. Seed and index alone decide its id, its place in the schedule, its readings
 * and its behaviour. Its `seq` grows over reconnects, as that of a real device does.
 */
export class Device {
  readonly id: string
  readonly topic: string
  /** When it sends in each period, as a share of the period. */
  readonly phase: number
  readonly random: Random
  readonly manners: Manners
  readonly #profile: Profile
  readonly #model: Model
  #seq = 0
  #saidAt = Number.NEGATIVE_INFINITY

  /** `index` counts from 0. */
  constructor(seed: number, index: number, behaviour: Behaviour = WELL_BEHAVED) {
    this.random = seededRandom(seed, index)
    this.phase = this.random()
    this.#profile = PROFILES[index % PROFILES.length] as Profile
    this.id = `${this.#profile.name}-${seed}-${String(index + 1).padStart(5, '0')}`
    this.topic = `devices/${this.id}/telemetry`
    // Separate streams: reconnects must change neither readings nor behaviour.
    this.#model = this.#profile.create(seededRandom(~seed, index))
    this.manners = new Manners(behaviour, seededRandom(seed ^ 0x5bd1e995, index))
  }

  /** Messages numbered so far. */
  get messages(): number {
    return this.#seq
  }

  /**
   * Takes the next reading, `seconds` after the one before. `now`: epoch ms. A run that is repeated counts `seq` from 1 again,
   * with newer times, which tell it from duplicates.
   */
  next(now: number, seconds: number): Act[] {
    const { samples } = this.#profile
    const ts = this.manners.clock(now)
    // The samples lie between the last payload and now.
    const since = Math.min(ts, Math.max(this.#saidAt, ts - seconds * 1000))
    this.#saidAt = ts
    const messages = Array.from({ length: samples }, (_, i) => {
      this.#seq++
      const values = this.manners.dress(this.#model.step(seconds / samples))
      return { ts: Math.round(since + ((i + 1) / samples) * (ts - since)), seq: this.#seq, values }
    })
    return this.manners.acts(JSON.stringify(samples === 1 ? messages[0] : messages), samples)
  }
}
