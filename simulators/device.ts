import type { Model, Profile } from './profiles.ts'
import { PROFILES } from './profiles.ts'
import { type Random, seededRandom } from './random.ts'

/**
 * One simulated device, apart from its connection: its id, its place in the schedule and what it reads are decided by
 * seed and index alone. Its `seq` grows over reconnects, as the memory of a real device would keep it.
 */
export class Device {
  readonly id: string
  readonly topic: string
  /** Its share of the period by which it comes after the start of each round, in [0, 1). */
  readonly phase: number
  readonly random: Random
  readonly #model: Model
  #seq = 0

  /** `index` counts from 0. */
  constructor(seed: number, index: number) {
    this.random = seededRandom(seed, index)
    this.phase = this.random()
    const profile = PROFILES[index % PROFILES.length] as Profile
    this.id = `${profile.name}-${seed}-${String(index + 1).padStart(5, '0')}`
    this.topic = `devices/${this.id}/telemetry`
    // Its own stream: how often a device had to reconnect must not change what it reads.
    this.#model = profile.create(seededRandom(~seed, index))
  }

  /**
   * The next message, `seconds` of the device's world after the one before, said to be of `ts` (epoch ms). A run that is
   * made again counts `seq` from 1 again with newer times, by which it is told from duplicates.
   */
  read(ts: number, seconds: number): string {
    this.#seq++
    return JSON.stringify({ ts, seq: this.#seq, values: this.#model.step(seconds) })
  }
}
