import type { Batch, BatchLimits, LogRecord, Offset } from '../log.ts'
import type { Fetched, FetchPosition } from './protocol/fetch.ts'
import { FetchedRecords } from './protocol/records.ts'

/** One partition as one follower reads it: what has come and is not yet read, and where to fetch on. */
export class Source implements FetchPosition {
  readonly topic: string
  readonly index: number
  /** Where the next fetch begins. */
  position: Offset
  /** Of the leader that wrote what stands before `position`; undefined until something was fetched. */
  epoch: number | undefined
  fetching = false
  /** Its broker has failed at it, and has not given anything since. */
  troubled = false
  unread = 0
  #answers: FetchedRecords[] = []
  /** The last stable offset, as told last; before that there may be anything. */
  #end: Offset = Number.POSITIVE_INFINITY
  #given: Offset
  #failure: Error | undefined
  #waiting: (() => void) | undefined

  constructor(topic: string, index: number, from: Offset) {
    this.topic = topic
    this.index = index
    this.position = from
    this.#given = from
  }

  /** There is more than was fetched. */
  get behind(): boolean {
    return this.position < this.#end
  }

  get failed(): boolean {
    return this.#failure !== undefined
  }

  /** Gives the epoch of the leader that wrote the last of it; undefined when it was nothing. */
  give({ bytes, aborted, end }: Fetched): number | undefined {
    this.troubled = false
    // After a leader that knows of less than the one before it this is less.
    this.#end = end
    if (bytes.length === 0) return undefined
    try {
      const answer = new FetchedRecords(`${this.topic} ${this.index}`, bytes, aborted, this.position)
      const reached = answer.end
      // Bytes of less than one batch bring nothing on.
      if (reached === undefined) return undefined
      this.position = Math.max(this.position, reached.offset)
      this.epoch = reached.epoch
      this.#answers.push(answer)
    } catch (error) {
      this.fail(error as Error)
      return undefined
    }
    this.unread += bytes.length
    this.wake()
    return this.epoch
  }

  fail(error: Error): void {
    this.#failure ??= error
    this.wake()
  }

  wake(): void {
    this.#waiting?.()
    this.#waiting = undefined
  }

  changed(): Promise<void> {
    return new Promise((resolve) => {
      if (this.#answers.length > 0 || this.#failure !== undefined) resolve()
      else this.#waiting = resolve
    })
  }

  /**
   * What is there, within `limits`; a batch without records where only the position moved; undefined for nothing. It is
   * gathered from all answers: a poll brings what came in milliseconds, and who is behind is to catch up in large steps.
   */
  take(limits: BatchLimits): Batch | undefined {
    const records: LogRecord[] = []
    let bytes = 0
    let next = this.#given
    for (;;) {
      const [answer] = this.#answers
      if (answer === undefined || records.length >= limits.maxRecords) break
      try {
        bytes = answer.read(limits, records, bytes)
      } catch (error) {
        // What comes before it is given first; nothing after it is.
        this.fail(error as Error)
        this.#answers = []
        next = answer.next
        break
      }
      next = answer.next
      if (!answer.done) break
      this.#answers.shift()
      this.unread -= answer.byteLength
    }
    if (next > this.#given) {
      this.#given = next
      return { records, next, end: Math.max(this.#end, next) }
    }
    if (this.#failure !== undefined) throw this.#failure
    return undefined
  }
}
