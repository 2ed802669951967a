import { isUtf8 } from 'node:buffer'
import { LogCorruptedError, OffsetOutOfRangeError, RetryableError, reasonOf } from '../../processor/contract/errors.ts'
import { viewOf } from '../../processor/contract/json.ts'
import {
  formatPosition,
  isDeviceId,
  type LetterReader,
  type LogRecord,
  type Offset,
  parsePosition,
} from '../../processor/contract/record.ts'
import { isoTime, MAX_TIME_MS } from '../../processor/contract/time.ts'
import { Limiter } from '../../processor/runtime/limiter.ts'
import { TextTurns } from '../../processor/runtime/turns.ts'
import { offsetsText, parseOffsets, type Seal, seal, sha256Checksum, unseal } from '../http/cursor.ts'
import { ProblemError } from '../http/problem.ts'
import { share } from '../search/fleet-search.ts'

/** Characters of the longest cursor: 1,024 partitions with offsets of up to 2^40. */
export const MAX_LETTERS_CURSOR = 10_000

const NOTHING = '-'

/** By partition: dead letters before this offset are still to be shown. Undefined: none is left. */
export type Unshown = readonly (Offset | undefined)[]

/** A cursor is bound to these, beside the log. */
export interface LetterFilters {
  readonly reason: string | undefined
  readonly deviceId: string | undefined
  readonly partition: number | undefined
}

/** Cursors of dead letters: `<checksum>.<offset>.…` with an offset per partition, `-` where nothing is left. */
export class LetterCursors {
  readonly #partitions: number
  readonly #seal: Seal

  /** A cursor is bound to the log of `identity` and to the filters. */
  constructor(identity: string, partitions: number, { reason, deviceId, partition }: LetterFilters) {
    const bound = JSON.stringify([identity, partitions, reason, deviceId, partition])
    this.#partitions = partitions
    this.#seal = { separator: '.', checksum: (body) => sha256Checksum(`${bound} ${body}`) }
  }

  encode(unshown: Unshown): string {
    return seal(offsetsText(unshown, NOTHING), this.#seal)
  }

  /** Undefined when no page of these filters gave the cursor. */
  decode(cursor: string): Unshown | undefined {
    const body = unseal(cursor, this.#seal)
    const unshown = body === undefined ? undefined : parseOffsets(body, NOTHING)
    return unshown?.length === this.#partitions ? unshown : undefined
  }
}

/** A dead letter that waits to be shown. */
interface FoundLetter {
  readonly partition: number
  readonly offset: Offset
  /** Epoch ms. Undefined: it has no time. */
  readonly at: number | undefined
  /** JSON. */
  readonly text: string
}

/** Most offsets of one window. */
const MAX_WINDOW = 4_096
/** Bytes of dead letters that a window aims at. */
const WINDOW_BYTES = 4 * 1024 * 1024
/** A window that exceeds this before its end is given up for a shorter one. */
const MAX_WINDOW_BYTES = 2 * WINDOW_BYTES

/** Reads one partition backwards from its end, window by window, and keeps what it found until it is shown. */
class LetterLane {
  readonly partition: number
  #start: Offset
  /** Everything from here up to the found letters was examined. */
  #examined: Offset
  /** The newest comes last. */
  #found: FoundLetter[] = []
  #window = 0
  #maxWindow = MAX_WINDOW

  /** Everything before `unshown` is still to be shown. */
  constructor(partition: number, start: Offset, unshown: Offset) {
    this.partition = partition
    this.#start = start
    this.#examined = unshown
  }

  /** The newest letter to show next. Undefined: none, or none found yet. */
  get head(): FoundLetter | undefined {
    return this.#found.at(-1)
  }

  /** The next letter is not known yet. */
  get isOpen(): boolean {
    return this.#found.length === 0 && this.#examined > this.#start
  }

  /** Everything before this offset is still to be shown. Undefined: nothing is left. */
  get unshown(): Offset | undefined {
    if (this.head !== undefined) return this.head.offset + 1
    return this.#examined > this.#start ? this.#examined : undefined
  }

  take(): FoundLetter {
    return this.#found.pop() as FoundLetter
  }

  /**
   * The next window to examine, likely to hold `wanted` letters: transaction markers take at most every other offset.
   * `first` bounds the first window, of which nothing is known.
   */
  next(wanted: number, first: number): { readonly from: Offset; readonly to: Offset } {
    const most = this.#window === 0 ? Math.min(first, this.#maxWindow) : this.#maxWindow
    this.#window = Math.min(Math.max(this.#window, 2 * wanted), most)
    return { from: Math.max(this.#start, this.#examined - this.#window), to: this.#examined }
  }

  /**
   * Records that the window from `from` on, of `bytes`, was examined and holds these letters in order. `more`: it holds
   * others before them.
   */
  add(from: Offset, bytes: number, letters: readonly FoundLetter[], more: boolean): void {
    const [first] = letters
    const fitting = Math.floor((WINDOW_BYTES * (this.#examined - from)) / Math.max(1, bytes))
    this.#maxWindow = Math.min(MAX_WINDOW, Math.max(1, fitting))
    this.#examined = more && first !== undefined ? first.offset : from
    this.#found = [...letters]
    // Letters that match are rare here.
    if (!more) this.#window *= 4
  }

  /** The window cannot be read whole, so the next one has this many offsets. */
  shorten(offsets: number): void {
    this.#maxWindow = offsets
  }

  /** Takes the current bounds: retention may have removed letters. */
  clip(start: Offset, end: Offset): void {
    this.#start = start
    this.#examined = Math.min(this.#examined, end)
  }
}

/**
 * Picks the lane with the newest head. A letter without a time comes at once, beside its newer neighbour, or it would
 * hold up those behind it. Equal times go by partition.
 */
function foremost(lanes: readonly LetterLane[]): LetterLane | undefined {
  let found: LetterLane | undefined
  for (const lane of lanes) if (lane.head !== undefined && isBefore(lane.head, found?.head)) found = lane
  return found
}

function isBefore({ at: a = Number.POSITIVE_INFINITY }: FoundLetter, other: FoundLetter | undefined): boolean {
  if (other === undefined) return true
  return a > (other.at ?? Number.POSITIVE_INFINITY)
}

/** Bytes of a payload that are shown. */
export const SHOWN_PAYLOAD_BYTES = 4_096
/** UTF-16 code units shown of any other text, and of all further headers with their names. */
export const SHOWN_TEXT_LENGTH = 1_024

/** Undefined when the dead letter names no device. */
export function deviceOf({ key }: LogRecord): string | undefined {
  return key !== null && isDeviceId(key) ? key : undefined
}

/** Copies a dead letter as it is shown, so that it does not keep the fetched buffer. */
function foundLetter(partition: number, record: LogRecord): FoundLetter {
  const at = timeOf(record)
  return { partition, offset: record.offset, at, text: JSON.stringify(shown(partition, record, at)) }
}

/** A foreign writer may put any 64 bits there. */
function timeOf({ timestamp }: LogRecord): number | undefined {
  const ms = Math.floor(timestamp)
  return ms >= 0 && ms <= MAX_TIME_MS ? ms : undefined
}

function shown(partition: number, record: LogRecord, at: number | undefined): object {
  const { reason, topic, truncated, timestamp, ...others } = record.headers ?? {}
  const { partition: fromPartition, offset: fromOffset, ...further } = others
  const position = parsePosition(`${fromPartition}-${fromOffset}`)
  const shortened: string[] = []
  const short = (name: string, text: string): string => {
    if (text.length <= SHOWN_TEXT_LENGTH) return text
    shortened.push(name)
    return beginningOf(text)
  }
  const told: Record<string, unknown> = {
    partition,
    offset: record.offset,
    at: at === undefined ? null : isoTime(at),
    reason: reason === undefined ? null : short('reason', reason),
    deviceId: deviceOf(record) ?? null,
    key: record.key === null ? null : short('key', record.key),
  }
  if (topic !== undefined) told.topic = short('topic', topic)
  if (position !== undefined) told.position = formatPosition(position)
  if (timestamp !== undefined) told.timestamp = short('timestamp', timestamp)
  if (truncated !== undefined) told.truncated = short('truncated', truncated)
  const left = position === undefined ? others : further
  const headers = fittingHeaders(left)
  if (headers.length > 0) told.headers = Object.fromEntries(headers)
  if (headers.length < Object.keys(left).length) shortened.push('headers')
  told.payload = record.value === null ? null : payloadOf(record.value)
  if (shortened.length > 0) told.shortened = shortened
  return told
}

function payloadOf(value: Uint8Array): object {
  const bytes = viewOf(value)
  const whole = bytes.length <= SHOWN_PAYLOAD_BYTES
  const isText = isUtf8(bytes)
  let end = whole ? bytes.length : SHOWN_PAYLOAD_BYTES
  // Does not cut within a character.
  if (isText) while (end < bytes.length && ((bytes[end] as number) & 0xc0) === 0x80) end--
  const content = bytes.toString(isText ? 'utf8' : 'base64', 0, end)
  return { encoding: isText ? 'text' : 'base64', content, bytes: bytes.length, ...(whole ? {} : { shownBytes: end }) }
}

function beginningOf(text: string): string {
  // Does not cut within a surrogate pair.
  const end = (text.charCodeAt(SHOWN_TEXT_LENGTH - 1) & 0xfc00) === 0xd800 ? SHOWN_TEXT_LENGTH - 1 : SHOWN_TEXT_LENGTH
  return text.slice(0, end)
}

function fittingHeaders(headers: Readonly<Record<string, string>>): [string, string][] {
  let length = 0
  return Object.entries(headers).filter(([name, text]) => {
    const fits = length + name.length + text.length <= SHOWN_TEXT_LENGTH
    if (fits) length += name.length + text.length
    return fits
  })
}

/** Partitions that one request reads at once. */
const LANES_AT_ONCE = 2
/** Letters that one partition keeps until they are shown. Those before them are read again. */
const MAX_KEPT = 100
/** Characters of found letters after which one request looks for no more. */
export const MAX_FOUND_LENGTH = 16 * 1024 * 1024
/** Characters of letters after which a page ends. */
const MAX_PAGE_LENGTH = 4 * 1024 * 1024
/** How often one window tolerates that retention removes its start. */
const MAX_OVERTAKEN = 3
const OVERTAKEN = 'retention removes them before they are read'
/** Least work for looking at one letter, in bytes of a turn. */
const LOOK_BYTES = 128

export interface LetterSource {
  readonly reader: LetterReader
  /** Shared by all requests. */
  readonly turns: TextTurns
}

export interface LetterQuestion {
  /** Undefined: all partitions. */
  readonly partition: number | undefined
  /** Undefined: from the ends. */
  readonly from: Unshown | undefined
  readonly limit: number
  matches(record: LogRecord): boolean
}

/** Bounds what one request examines. */
export interface LetterBudget {
  readonly records: number
  readonly bytes: number
}

export interface LetterPage {
  readonly letters: readonly FoundLetter[]
  /** Where the next page goes on, by partition. Undefined: this is the last page. */
  readonly next: Unshown | undefined
  /** False: the budget was spent, or `signal` aborted, before everything was examined. */
  readonly complete: boolean
}

/**
 * Returns the newest letters of all partitions asked for, in order. Those of an incomplete page may be older than some
 * of the next. Rejects with ProblemError `log-unavailable`, which names the partition, when one cannot be read or is
 * damaged, or when the log gives nothing until `signal` aborts.
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
    // When one partition fails, the others need not finish.
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
  readonly #limiter = new Limiter(LANES_AT_ONCE)
  readonly #turns: TextTurns
  #records = 0
  #bytes = 0
  #found = 0
  #windows = 0
  /** Offsets of a first window. It shrinks once a window had to be given up. */
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
      // Finding the foremost lane looked at each lane.
      await this.#turns.spend(lanes.length * LOOK_BYTES)
    }
    // Names the first partition of which nothing was read.
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

  /** A failure of the log becomes the answer: without it the partition's letters would seem not to exist. */
  async #inTurn<T>(partition: number, work: () => Promise<T>): Promise<T> {
    try {
      return await this.#limiter.run(work)
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

  /**
   * Reads until the lane has a letter to show, or has none. It finishes a window that it began, so that pages make
   * progress.
   */
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
