import type { SnapshotReader } from '../../../api/changes/snapshot.ts'
import { OffsetOutOfRangeError } from '../../../processor/contract/errors.ts'
import { partitionOf } from '../../../processor/contract/partition.ts'
import { type Freshness, type Listing, sliceOf } from '../../../processor/contract/query.ts'
import type { ChangeBatch, ChangeFeed, LogRecord, Offset } from '../../../processor/contract/record.ts'
import { decodeStatus, type Status } from '../../../processor/contract/status.ts'
import { encodeStatus } from '../../status-model.ts'

const AT = '2026-11-24T10:00:00.000Z'
const FIRST_SEEN = Date.parse(AT)

/** A changelog in memory that any number of processes follow, and copies of it that lag as they are told to. */
export class Changelog {
  readonly partitions: number
  /** Everything ever written, and what compaction has left of it. */
  readonly #written: LogRecord[][]
  readonly #kept: LogRecord[][]
  #waiting = new Set<() => void>()
  /** By device, of how many deletions it has come back, and how many statuses it has had since. */
  readonly #lives = new Map<string, { life: number; rev: number }>()
  /** Characters that each status has beside what it says. */
  padding = 0
  /** Records by which a copy that answers lags, and by which it holds more than it says. */
  lag = 0
  slack = 0

  constructor(partitions: number) {
    this.partitions = partitions
    this.#written = Array.from({ length: partitions }, () => [])
    this.#kept = Array.from({ length: partitions }, () => [])
  }

  /** `x`: what the device reports; undefined: it is deleted. */
  put(deviceId: string, x: number | undefined): void {
    const partition = partitionOf(deviceId, this.partitions)
    const offset = this.end(partition)
    const { life, rev } = this.#lives.get(deviceId) ?? { life: 0, rev: 0 }
    this.#lives.set(deviceId, x === undefined ? { life: life + 1, rev: 0 } : { life, rev: rev + 1 })
    const status = x === undefined ? undefined : statusOf(deviceId, x, this.padding)
    const version = { rev: rev + 1, firstSeenAt: new Date(FIRST_SEEN + life).toISOString() }
    const value = status === undefined ? null : encodeStatus({ ...status, ...version })
    const record = { offset, key: deviceId, value, timestamp: 0 }
    this.#written[partition]?.push(record)
    this.#kept[partition]?.push(record)
    this.wake()
  }

  compact(): void {
    for (const kept of this.#kept) {
      const newest = new Map(kept.map((record) => [record.key, record]))
      kept.splice(0, kept.length, ...kept.filter((record) => newest.get(record.key) === record))
    }
  }

  end(partition: number): Offset {
    return this.#written[partition]?.length ?? 0
  }

  /** What each device that is there reports. */
  devices(): Map<string, number> {
    const all = Array.from({ length: this.partitions }, (_, p) => [...this.#state(p, this.end(p))]).flat()
    return new Map(all.map(([deviceId, status]) => [deviceId, reportOf(decodeStatus(status))]))
  }

  status(deviceId: string): Status | undefined {
    const partition = partitionOf(deviceId, this.partitions)
    const status = this.#state(partition, this.end(partition)).get(deviceId)
    return status && decodeStatus(status)
  }

  wake(): void {
    const waiting = this.#waiting
    this.#waiting = new Set()
    for (const resolve of waiting) resolve()
  }

  /** As one process follows it; while `gate.closed` it is given nothing new. */
  feed(gate: { closed: boolean } = { closed: false }): ChangeFeed {
    const follow = async function* (
      log: Changelog,
      partition: number,
      from: Offset,
      signal: AbortSignal,
    ): AsyncGenerator<ChangeBatch> {
      if (from > log.end(partition)) throw new OffsetOutOfRangeError(`${from} is past the end`)
      signal.addEventListener('abort', () => log.wake())
      let next = from
      while (!signal.aborted) {
        const end = log.end(partition)
        if (gate.closed || next >= end) {
          await new Promise<void>((resolve) => log.#waiting.add(resolve))
          continue
        }
        const records = (log.#kept[partition] ?? []).filter(({ offset }) => offset >= next).slice(0, 2)
        next = records.length < 2 ? end : (records.at(-1) as LogRecord).offset + 1
        yield { records, next }
      }
    }
    return {
      identity: 'memory',
      partitions: this.partitions,
      deleteRetentionMs: 24 * 3600_000,
      follow: (partition, from, signal) => follow(this, partition, from, signal),
      bounds: async (partition) => ({ start: 0, end: this.end(partition) }),
    }
  }

  readonly reader: SnapshotReader = {
    get: async (deviceId) => {
      const partition = partitionOf(deviceId, this.partitions)
      const { state, freshness } = this.#copy(partition)
      const status = state.get(deviceId)
      return { status: status && sliceOf(status), freshness }
    },
    listPartition: async (partition, after, limit): Promise<Listing> => {
      const { state, freshness } = this.#copy(partition)
      const ids = [...state.keys()].filter((id) => after === undefined || id > after).toSorted()
      const items = ids.slice(0, limit).map((deviceId) => ({ deviceId, status: state.get(deviceId) as Uint8Array }))
      return { items, freshness }
    },
  }

  #copy(partition: number): { state: Map<string, Uint8Array>; freshness: Freshness } {
    const holds = Math.max(0, this.end(partition) - this.lag)
    const changelog = Math.max(0, holds - this.slack)
    const freshness = { partition, offset: 0, changelog, lag: this.lag, servedBy: 'standby' } as const
    return { state: this.#state(partition, holds), freshness }
  }

  #state(partition: number, end: Offset): Map<string, Uint8Array> {
    const state = new Map<string, Uint8Array>()
    for (const { key, value } of this.#written[partition]?.slice(0, end) ?? []) {
      if (value === null) state.delete(key as string)
      else state.set(key as string, value)
    }
    return state
  }
}

export function reportOf(status: Status): number {
  return status.reported.x?.value as number
}

export function statusOf(deviceId: string, x: number, padding: number): Status {
  return {
    deviceId,
    rev: 1,
    reported: { x: { value: x, at: AT }, ...(padding > 0 && { padding: { value: '-'.repeat(padding), at: AT } }) },
    connectivity: { state: 'online', since: AT, reason: 'connected', session: 1 },
    firstSeenAt: AT,
    lastSeenAt: AT,
    counters: { messages: 1, late: 0, duplicates: 0, skewed: 0 },
  }
}
