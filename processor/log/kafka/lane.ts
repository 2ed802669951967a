import type { TidemarkError } from '../../contract/errors.ts'
import type { NewRecord, Position } from '../log.ts'
import type { PartitionBatch } from './protocol/produce.ts'
import type { Producer } from './protocol/record-batch.ts'

/** One call of append(), resolved when the last of its records is in the log. */
export interface Append {
  /** On the clock of performance.now(). */
  readonly since: number
  left: number
  error: TidemarkError | undefined
  /** Where the last of its records that were sent is; undefined while no broker has said. */
  last: Position | undefined
  resolve(): void
  reject(error: Error): void
}

export interface Batch extends PartitionBatch {
  readonly appends: readonly { readonly append: Append; readonly count: number }[]
  readonly count: number
  readonly size: number
}

/** What waits for one partition, in order. At most one batch of it is under way. */
export interface Lane {
  readonly topic: string
  readonly partition: number
  producer: Producer | undefined
  sequence: number
  pending: NewRecord[]
  bounds: number[]
  appends: { append: Append; count: number }[]
  batch: Batch | undefined
  /** A request with a batch of it is under way: the next waits for its end, also when the batch was given up. */
  sending: boolean
  /** When something of it was last in the log, or its leader answered a request that had no room for it. */
  progress: number
}

export function waits({ batch, pending }: Lane): boolean {
  return batch !== undefined || pending.length > 0
}

/** Since when what has waited longest in it does. */
export function waitsSince({ batch, appends }: Pick<Lane, 'batch' | 'appends'>): number {
  return (batch?.appends[0] ?? appends[0])?.append.since ?? Number.POSITIVE_INFINITY
}

/** Since when its leader has said nothing. */
export function silentSince(lane: Lane): number {
  return Math.max(waitsSince(lane), lane.progress)
}

export function newLane(topic: string, partition: number): Lane {
  return {
    topic,
    partition,
    producer: undefined,
    sequence: 0,
    pending: [],
    bounds: [],
    appends: [],
    batch: undefined,
    sending: false,
    progress: 0,
  }
}

/** How many of the records that are pending, from the first on, have so many bytes together; one at least. */
export function fitting({ pending, bounds }: Lane, maxBytes: number): { count: number; size: number } {
  let size = 0
  let count = 0
  while (count < pending.length) {
    const bound = bounds[count] as number
    if (count > 0 && size + bound > maxBytes) break
    size += bound
    count++
  }
  return { count, size }
}

/** The calls that the first `count` records of the lane belong to, taken out of it. */
export function takeAppends(lane: Lane, count: number): { append: Append; count: number }[] {
  const taken: { append: Append; count: number }[] = []
  let left = count
  while (left > 0) {
    const first = lane.appends[taken.length] as { append: Append; count: number }
    const part = Math.min(first.count, left)
    taken.push({ append: first.append, count: part })
    left -= part
    if (part < first.count) {
      first.count -= part
      lane.appends = lane.appends.slice(taken.length - 1)
      return taken
    }
  }
  lane.appends = lane.appends.slice(taken.length)
  return taken
}

export function place({ appends, partition }: Batch, baseOffset: number): void {
  let end = baseOffset
  for (const { append, count } of appends) {
    end += count
    append.last = { partition, offset: end - 1 }
  }
}

export function complete(
  appends: readonly { append: Append; count: number }[],
  error: TidemarkError | undefined,
): void {
  for (const { append, count } of appends) {
    append.left -= count
    append.error ??= error
    if (append.left > 0) continue
    if (append.error === undefined) append.resolve()
    else append.reject(append.error)
  }
}
