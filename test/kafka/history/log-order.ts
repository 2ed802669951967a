import type { Offset } from '../../../processor/contract/record.ts'
import type { Write } from './history.ts'
import type { Logged, States } from './states.ts'

/** Where the writes of a history are in the log, and what follows from that. */
export class LogOrder {
  readonly #places = new Map<Write, Offset>()
  readonly #byToken = new Map<string, Logged[]>()
  /** By partition: writes by the time at which they were asked, each with the least offset of those from it on. */
  readonly #later = new Map<number, { invoked: number; least: Offset }[]>()

  constructor(writes: readonly Write[], states: States) {
    for (const logged of states.writes) {
      if (logged.token === undefined) continue
      this.#byToken.set(logged.token, [...(this.#byToken.get(logged.token) ?? []), logged])
    }
    for (const write of writes) {
      const offset = write.offset ?? this.loggedAs(write)[0]?.offset
      if (offset !== undefined) this.#places.set(write, offset)
    }
    for (const [{ invoked, partition }, least] of [...this.#places].sort(([a], [b]) => b.invoked - a.invoked)) {
      const later = this.#later.get(partition) ?? []
      later.push({ invoked, least: Math.min(least, later.at(-1)?.least ?? Number.POSITIVE_INFINITY) })
      this.#later.set(partition, later)
    }
  }

  /** Undefined: no answer tells it, and it is not in the log, or cannot be told from others. */
  placeOf(write: Write): Offset | undefined {
    return this.#places.get(write)
  }

  /** All that the log has of it; of a deletion nothing is known by that. */
  loggedAs({ token }: Write): readonly Logged[] {
    return token === undefined ? [] : (this.#byToken.get(token) ?? [])
  }

  /**
   * What had been sent to a partition by some time: no record from this offset on. A write that is asked later comes to the
   * log later, and so does all behind it.
   */
  horizon(partition: number, time: number): Offset {
    const later = this.#later.get(partition) ?? []
    return later.findLast(({ invoked }) => invoked > time)?.least ?? Number.POSITIVE_INFINITY
  }
}
