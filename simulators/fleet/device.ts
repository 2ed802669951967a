import { type Random, seededRandom } from '../random.ts'
import { type Act, type Behaviour, Manners, WELL_BEHAVED } from './behaviour.ts'
import type { Model, Profile } from './profiles.ts'
import { PROFILES } from './profiles.ts'

/**
 * One simulated device, apart from its connection: its id, its place in the schedule, what it reads and how it behaves are
 * decided by seed and index alone. Its `seq` grows over reconnects, as the memory of a real device would keep it.
 */
export class Device {
  readonly id: string
  readonly topic: string
  /** Its share of the period by which it comes after the start of each round, in [0, 1). */
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
    // Streams of their own: how often a device had to reconnect must not change what it reads, nor how it behaves.
    this.#model = this.#profile.create(seededRandom(~seed, index))
    this.manners = new Manners(behaviour, seededRandom(seed ^ 0x5bd1e995, index))
  }

  /** Messages numbered so far: what of them is applied counts once each. */
  get messages(): number {
    return this.#seq
  }

  /**
   * Reads, `seconds` of the device's world after the time before, and says what comes of it. `now`: epoch ms. A run that
   * is made again counts `seq` from 1 again with newer times, by which it is told from duplicates.
   */
  next(now: number, seconds: number): Act[] {
    const { samples } = this.#profile
    const ts = this.manners.clock(now)
    // Its samples lie between what it said last and now.
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
