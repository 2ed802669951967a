import { LogCorruptedError, OffsetOutOfRangeError, RetryableError, reasonOf } from '../../processor/contract/errors.ts'
import type { LetterReader } from '../../processor/contract/letter-reader.ts'
import type { LogRecord, Offset } from '../../processor/contract/record.ts'
import { Turnstile } from '../../processor/runtime/limiter.ts'
import { TextTurns } from '../../processor/runtime/text-turns.ts'
import { ProblemError } from '../http/problem.ts'
import { share } from '../search/fleet-search.ts'
import type { Unshown } from './cursor.ts'
import { type FoundLetter, foremost, LetterLane, MAX_WINDOW_BYTES } from './lane.ts'
import { foundLetter } from './shown.ts'

/** Partitions that one request reads, or asks for their bounds, at once. */
const LANES_AT_ONCE = 2
/** Letters that one partition keeps at most until they are shown; those before them are read again. */
const MAX_KEPT = 100
/** Characters of letters found, by one request, after which no more are looked for. */
export const MAX_FOUND_LENGTH = 16 * 1024 * 1024
/** Characters of letters after which a page ends. */
const MAX_PAGE_LENGTH = 4 * 1024 * 1024
/** How often what retention removes meanwhile is met in one window. */
const MAX_OVERTAKEN = 3
const OVERTAKEN = 'retention removes them before they are read'
/** What looking at a letter takes at least, as bytes of its turn. */
const LOOK_BYTES = 128

export interface LetterSource {
  readonly reader: LetterReader
  /** Of all requests. */
  readonly turns: TextTurns
}

export interface LetterQuestion {
  /** Undefined: all. */
  readonly partition: number | undefined
  /** Undefined: from the ends. */
  readonly from: Unshown | undefined
  readonly limit: number
  matches(record: LogRecord): boolean
}

/** What one request examines at most. */
export interface LetterBudget {
  readonly records: number
  readonly bytes: number
}

export interface LetterPage {
  readonly letters: readonly FoundLetter[]
  /** By partition, where the next page goes on; undefined: there is none. */
  readonly next: Unshown | undefined
  /** False: the budget was spent, or `signal` had aborted, before all that had to be examined was. */
  readonly complete: boolean
}

/**
 * The newest letters of all partitions that are asked for, in order; of a page that is not complete they may be older than
 * some of the next. Rejects with ProblemError `log-unavailable`, which names the partition, when one cannot be read or is
 * damaged, and when the log gives nothing until `signal` aborts.
 */
export async function readLetters(
  source: LetterSource,
  question: LetterQuestion,
  budget: LetterBudget,
  signal: AbortSignal,
): Promise<LetterPage> {
  const ended = new AbortController()
  const either = AbortSignal.any([signal, ended.signal])
  try {
    return await new LetterReading(source, question, budget, either).page()
  } finally {
    // What one partition fails at need not be done for the others.
    ended.abort()
  }
}

class LetterReading {
  readonly #reader: LetterReader
  readonly #question: LetterQuestion
  readonly #budget: LetterBudget
  readonly #signal: AbortSignal
  /** Rejects when the signal aborts. */
  readonly #aborted: Promise<never>
  readonly #turnstile = new Turnstile(LANES_AT_ONCE)
  readonly #turns: TextTurns
  #records = 0
  #bytes = 0
  #found = 0
  #windows = 0
  /** Offsets of a first window: fewer once one had to be given up. */
  #first = Number.POSITIVE_INFINITY

  constructor({ reader, turns }: LetterSource, question: LetterQuestion, budget: LetterBudget, signal: AbortSignal) {
    this.#reader = reader
    this.#turns = turns
    this.#question = question
    this.#budget = budget
    this.#signal = signal
    this.#aborted = new Promise((_, reject) => {
      signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true })
    })
    this.#aborted.catch(() => {})
  }

  async page(): Promise<LetterPage> {
    const { limit } = this.#question
    const lanes = await this.#open()
    const letters: FoundLetter[] = []
    let length = 0
    let complete = true
    while (letters.length < limit && length < MAX_PAGE_LENGTH) {
      const open = complete ? lanes.filter((lane) => lane.isOpen) : []
      if (open.length > 0) {
        if (this.#isOver) {
          complete = false
          continue
        }
        const wanted = Math.min(MAX_KEPT, share(limit - letters.length, lanes.length))
        await Promise.all(open.map((lane) => this.#inTurn(lane.partition, () => this.#fill(lane, wanted))))
        continue
      }
      const lane = foremost(lanes)
      if (lane === undefined) break
      const letter = lane.take()
      letters.push(letter)
      length += letter.text.length
      // To find it, each lane was looked at.
      await this.#turns.spend(lanes.length * LOOK_BYTES)
    }
    // The first of those that none was read of.
    const unread = this.#windows === 0 ? lanes.find((lane) => lane.isOpen) : undefined
    if (unread !== undefined && this.#signal.aborted) throw this.#unavailable(unread.partition, this.#signal.reason)
    const unshown: (Offset | undefined)[] = Array.from({ length: this.#reader.partitions }, () => undefined)
    for (const lane of lanes) unshown[lane.partition] = lane.unshown
    const next = unshown.some((offset) => offset !== undefined) ? unshown : undefined
    return { letters, next, complete }
  }

  get #isOver(): boolean {
    const { records, bytes } = this.#budget
    if (this.#signal.aborted) return true
    return this.#records >= records || this.#bytes >= bytes || this.#found >= MAX_FOUND_LENGTH
  }

  async #open(): Promise<LetterLane[]> {
    const { partition, from } = this.#question
    const all = Array.from({ length: this.#reader.partitions }, (_, i) => i)
    const asked = all.filter((i) => (partition ?? i) === i && (from === undefined || from[i] !== undefined))
    const open = async (i: number): Promise<LetterLane> => {
      const { start, end } = await this.#bounds(i)
      return new LetterLane(i, start, Math.min(from?.[i] ?? end, end))
    }
    return await Promise.all(asked.map((i) => this.#inTurn(i, () => open(i))))
  }

  /** What the log fails at in the partition becomes the answer: left out, its letters would seem not to be. */
  async #inTurn<T>(partition: number, work: () => Promise<T>): Promise<T> {
    try {
      return await this.#turnstile.run(work)
    } catch (error) {
      const isOfLog = error instanceof RetryableError || error instanceof LogCorruptedError
      throw isOfLog || error === this.#signal.reason ? this.#unavailable(partition, error) : error
    }
  }

  #unavailable(partition: number, error: unknown): ProblemError {
    const others = this.#question.partition === undefined ? '; ?partition= lists the others one by one' : ''
    const detail = `the log does not give the dead letters of partition ${partition} now: ${reasonOf(error)}${others}`
    return new ProblemError('log-unavailable', detail, {}, { 'retry-after': '1' })
  }

  async #bounds(partition: number): Promise<{ start: Offset; end: Offset }> {
    this.#signal.throwIfAborted()
    return await Promise.race([this.#reader.bounds(partition, this.#signal), this.#aborted])
  }

  /** Until the lane has something to show, or has nothing. A window that is begun is examined, so that pages go on. */
  async #fill(lane: LetterLane, wanted: number): Promise<void> {
    let overtaken = 0
    let whole = true
    while (lane.isOpen && !(whole ? this.#isOver : this.#signal.aborted)) {
      try {
        whole = await this.#examine(lane, wanted)
        if (!whole) continue
        this.#windows++
        overtaken = 0
      } catch (error) {
        if (this.#signal.aborted) return
        if (!(error instanceof OffsetOutOfRangeError)) throw error
        if (++overtaken > MAX_OVERTAKEN) throw new RetryableError('LOG_UNAVAILABLE', OVERTAKEN, error)
        const { start, end } = await this.#bounds(lane.partition)
        lane.clip(start, end)
      }
    }
  }

  /** False: the window is too large, and a shorter one is next. */
  async #examine(lane: LetterLane, wanted: number): Promise<boolean> {
    const { from, to } = lane.next(wanted, this.#first)
    const found: FoundLetter[] = []
    let more = false
    let bytes = 0
    for await (const batch of this.#reader.read(lane.partition, from, to, this.#signal)) {
      let reached = from
      let here = 0
      for (const record of batch) {
        if (record.offset >= to) break
        reached = record.offset + 1
        here += bytesOf(record)
        this.#records++
        if (!this.#question.matches(record)) continue
        const letter = foundLetter(lane.partition, record)
        found.push(letter)
        if (found.length > wanted) {
          found.shift()
          more = true
        }
        await this.#turns.spend(letter.text.length)
      }
      bytes += here
      this.#bytes += here
      if (bytes > MAX_WINDOW_BYTES && reached > from && reached < to) {
        this.#first = Math.max(1, Math.floor((reached - from) / 2))
        lane.shorten(this.#first)
        return false
      }
      await this.#turns.spend(here + batch.length * LOOK_BYTES)
    }
    lane.add(from, bytes, found, more)
    for (const { text } of found) this.#found += text.length
    return true
  }
}

function bytesOf({ key, value, headers = {} }: LogRecord): number {
  let bytes = (key?.length ?? 0) + (value?.byteLength ?? 0)
  for (const name in headers) bytes += name.length + (headers[name] as string).length
  return bytes
}
