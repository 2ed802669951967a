import type { LogRecord } from '../../../processor/contract/record.ts'
import { decodeRecord } from '../../../processor/status/decode.ts'
import { fold } from '../../../processor/status/fold.ts'
import type { HeldStatus } from '../../../processor/status/held-status.ts'
import { willIn } from '../load/visitors.ts'
import type { KafkaRecord } from '../stage/kafka-client.ts'

/** A set of whole numbers, kept as ascending inclusive ranges. */
export class Ranges {
  readonly #ranges: [number, number][] = []
  count = 0

  /** False when the number was there already. */
  add(n: number): boolean {
    const ranges = this.#ranges
    let i = ranges.length
    while (i > 0 && (ranges[i - 1] as [number, number])[0] > n) i--
    const below = ranges[i - 1]
    if (below !== undefined && n <= below[1]) return false
    const above = ranges[i]
    this.count++
    if (below !== undefined && below[1] === n - 1) {
      below[1] = n
      if (above !== undefined && above[0] === n + 1) {
        below[1] = above[1]
        ranges.splice(i, 1)
      }
    } else if (above !== undefined && above[0] === n + 1) above[0] = n
    else ranges.splice(i, 0, [n, n])
    return true
  }

  /** How many of the numbers from `first` to `last` are missing. */
  missing(first: number, last: number): number {
    let missing = Math.max(0, last - first + 1)
    for (const [low, high] of this.#ranges) {
      const overlap = Math.min(high, last) - Math.max(low, first) + 1
      if (overlap > 0) missing -= overlap
    }
    return missing
  }
}

/** The telemetry that retention removed since the drill `began`, in words. Both are offsets by partition. */
export function removedSince(began: readonly number[], starts: readonly number[]): string[] {
  return starts.flatMap((start, partition) => {
    const from = began[partition] ?? 0
    return start > from ? [`retention removed ${from} to ${start - 1} of partition ${partition}`] : []
  })
}

/** What the telemetry topic holds of one device, counted without the product's decoder. */
export interface DeviceCount {
  /** How many records carry a numbered message. */
  messages: number
  readonly seqs: Ranges
  /** How many wills there are, by the name in them; wills have no number. */
  readonly wills: Map<string, number>
}

/**
 * Reads the telemetry of the drill's devices in two ways. It counts what the payloads say by itself; and it runs the product's
 * fold, record by record, without batches, caches or stores, up to the committed offsets.
 */
export class InputCount {
  /** By device id. */
  readonly devices = new Map<string, DeviceCount>()
  readonly #folded = new Map<string, HeldStatus>()
  readonly #prefix: string
  readonly #committed: readonly number[]
  records = 0

  constructor(prefix: string, committed: readonly number[]) {
    this.#prefix = `${prefix}-`
    this.#committed = committed
  }

  take(partition: number, record: LogRecord | KafkaRecord): void {
    const { key } = record
    if (key?.startsWith(this.#prefix) !== true) return
    this.records++
    if (record.headers?.kind === undefined) this.#count(key, payloadOf(record.value))
    if (record.offset < (this.#committed[partition] ?? 0)) this.#fold(key, record)
  }

  /** JSON of the status that each device should have. */
  get statuses(): Map<string, string> {
    return new Map(Array.from(this.#folded, ([id, status]) => [id, status.text()]))
  }

  #count(key: string, payload: unknown): void {
    const seq = seqIn(payload)
    const will = willIn(payload)
    if (seq === undefined && will === undefined) return
    let device = this.devices.get(key)
    if (device === undefined) this.devices.set(key, (device = { messages: 0, seqs: new Ranges(), wills: new Map() }))
    if (seq !== undefined) {
      device.messages++
      device.seqs.add(seq)
    } else if (will !== undefined) device.wills.set(will, (device.wills.get(will) ?? 0) + 1)
  }

  #fold(key: string, record: LogRecord): void {
    const decoded = decodeRecord(record)
    if (decoded.kind === 'rejected') return
    const status = fold(this.#folded.get(key), key, decoded)
    if (status !== undefined) this.#folded.set(key, status)
  }
}

/** Undefined for a payload of poison. */
function seqIn(payload: unknown): number | undefined {
  const { seq } = Object(payload) as { seq?: unknown }
  return typeof seq === 'number' ? seq : undefined
}

function payloadOf(value: Uint8Array | null): unknown {
  try {
    return JSON.parse(Buffer.from(value ?? []).toString())
  } catch (error) {
    if (error instanceof SyntaxError) return undefined
    throw error
  }
}
