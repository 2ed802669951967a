import { viewOf } from '../../processor/contract/json.ts'
import type { LogRecord, Offset } from '../../processor/contract/record.ts'
import { readableStatus, type Status } from '../../processor/contract/status.ts'
import type { Matcher } from '../../processor/search/language/match.ts'

/** One record of the changelog, decoded once for all streams that it concerns. */
export class Change {
  readonly partition: number
  readonly offset: Offset
  readonly deviceId: string
  /** See DeviceNumbers. Undefined: the device has none. */
  readonly number: number | undefined
  /** JSON of the status. Undefined: the device was deleted. */
  readonly text: string | undefined
  #status: Status | undefined
  #work = 0

  constructor(partition: number, { offset, key, value }: LogRecord, numbers: DeviceNumbers) {
    this.partition = partition
    this.offset = offset
    this.deviceId = key ?? ''
    this.number = numbers.of(this.deviceId, value === null)
    // Copied, because the record's value may be a view of a far larger buffer.
    this.text = value === null ? undefined : textOf(this.deviceId, value)
  }

  get bytes(): number {
    return this.text?.length ?? 0
  }

  /** Whether the device exists and satisfies `matcher`; undefined matches every status. */
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

  /** Drops the decoded status and keeps its text. Returns the work that matching took, in bytes of JSON. */
  forget(): number {
    const work = this.#work
    this.#work = 0
    this.#status = undefined
    return work
  }
}

/** For a foreign record that is no status, streams show the same as reads do. */
function textOf(deviceId: string, value: Uint8Array): string {
  return viewOf(readableStatus(value, deviceId)).toString('utf8')
}

export function statusOf(deviceId: string, text: string): Status {
  try {
    return JSON.parse(text) as Status
  } catch (error) {
    if (error instanceof SyntaxError) return { deviceId } as Status
    throw error
  }
}

/** Numbers begin anew when this share of the numbered devices was deleted, since each stream must forget them then. */
const GONE_SHARE = 1 / 4

/**
 * Gives devices small consecutive numbers, so that a stream keeps two bits for each. At the bound further devices get
 * none, until enough were deleted; then all get new, different numbers.
 */
export class DeviceNumbers {
  readonly #limit: number
  readonly #numbers = new Map<string, number>()
  readonly #gone = new Set<string>()
  /** Smaller numbers belong to nobody any more. */
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
