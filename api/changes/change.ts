import { viewOf } from '../../processor/contract/json.ts'
import type { LogRecord, Offset } from '../../processor/contract/record.ts'
import { readableStatus, type Status } from '../../processor/contract/status.ts'
import type { Matcher } from '../../processor/search/language/match.ts'

/** One record of the changelog, decoded once however many streams it concerns. */
export class Change {
  readonly partition: number
  readonly offset: Offset
  readonly deviceId: string
  /** See DeviceNumbers; undefined: it has none. */
  readonly number: number | undefined
  /** JSON of the status; undefined: the device was deleted. */
  readonly text: string | undefined
  #status: Status | undefined
  #work = 0

  constructor(partition: number, { offset, key, value }: LogRecord, numbers: DeviceNumbers) {
    this.partition = partition
    this.offset = offset
    this.deviceId = key ?? ''
    this.number = numbers.of(this.deviceId, value === null)
    // A copy: the record's value may be a view of a far larger buffer.
    this.text = value === null ? undefined : textOf(this.deviceId, value)
  }

  get bytes(): number {
    return this.text?.length ?? 0
  }

  /** Whether it is there, and satisfies `matcher`; undefined: whatever it is. */
  matches(matcher: Matcher | undefined): boolean {
    if (this.text === undefined) return false
    if (matcher === undefined) return true
    if (this.#status === undefined) {
      this.#status = statusOf(this.deviceId, this.text)
      this.#work += this.bytes
    }
    const matched = matcher.matches(this.#status)
    this.#work += matcher.takeWork()
    return matched
  }

  /** Lets go of the decoded status: the text is what is kept. Returns what the matching took, as bytes of JSON handled. */
  forget(): number {
    const work = this.#work
    this.#work = 0
    this.#status = undefined
    return work
  }
}

/** Of a record that another program wrote, and that is no status, streams show what reads show. */
function textOf(deviceId: string, value: Uint8Array): string {
  return viewOf(readableStatus(value, deviceId)).toString('utf8')
}

/** Of a text that a change has. */
export function statusOf(deviceId: string, text: string): Status {
  try {
    return JSON.parse(text) as Status
  } catch (error) {
    if (error instanceof SyntaxError) return { deviceId } as Status
    throw error
  }
}

/** So many of the devices with a number must have been deleted before numbers begin anew, as each stream forgets by that. */
const GONE_SHARE = 1 / 4

/**
 * Gives each device a number near those of others, so that a stream can keep two bits of it. At the bound further ones get
 * none, until enough were deleted of those that have one: then all are numbered anew, by other numbers.
 */
export class DeviceNumbers {
  readonly #limit: number
  readonly #numbers = new Map<string, number>()
  /** Those that have a number and were deleted. */
  readonly #gone = new Set<string>()
  /** Numbers below are nobody's any more. */
  first = 0

  constructor(limit: number) {
    this.#limit = limit
  }

  of(deviceId: string, deleted = false): number | undefined {
    let number = this.#numbers.get(deviceId)
    if (number === undefined) {
      if (this.#numbers.size >= this.#limit && !this.#beginAnew()) return undefined
      number = this.first + this.#numbers.size
      this.#numbers.set(deviceId, number)
    }
    if (deleted) this.#gone.add(deviceId)
    else this.#gone.delete(deviceId)
    return number
  }

  #beginAnew(): boolean {
    if (this.#gone.size < this.#limit * GONE_SHARE) return false
    this.first += this.#numbers.size
    this.#numbers.clear()
    this.#gone.clear()
    return true
  }
}
