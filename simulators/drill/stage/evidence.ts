import { reasonOf } from '../../../processor/contract/errors.ts'
import type { Log, LogRecord, Topic } from '../../../processor/log/log.ts'
import { within } from '../../../processor/runtime/pause.ts'
import { ChangelogCheck } from '../checks/changelog-check.ts'
import { type CopyReading, type DeviceAnswer, readAlone, readApi } from '../checks/copies.ts'
import { InputCount, removedSince } from '../checks/input-count.ts'
import type { Committed, LogReader, Stage } from './stage.ts'

/** What the log holds after a run. */
export interface LogReading {
  readonly input: Pick<InputCount, 'devices' | 'records' | 'statuses'>
  /** Telemetry that retention removed before the drill read it, in words. */
  readonly removed: readonly string[]
  readonly changelog: ChangelogCheck
  /** By partition. */
  readonly committed: readonly Committed[]
  readonly changelogEnds: readonly number[]
  /** Counts those of the drill's devices. */
  readonly deadLetters: number
}

/** What API, log and stores hold after a run. A part that could not be read is undefined. */
export interface Gathered {
  readonly answers: ReadonlyMap<string, DeviceAnswer> | undefined
  readonly alone: Alone | undefined
  readonly log: LogReading | undefined
  readonly copies: readonly CopyReading[] | undefined
  /** Each part that could not be read, and why. */
  readonly missing: readonly string[]
}

/** Answers for devices that were asked for one by one; a device that the API does not know has none. */
export interface Alone {
  readonly asked: readonly string[]
  readonly answers: ReadonlyMap<string, DeviceAnswer>
}

export interface GatherOptions {
  readonly prefix: string
  readonly ids: readonly string[]
  /** Committed offsets seen during the run, by partition, in the order of time. */
  readonly samples: readonly (readonly Committed[])[]
  /** Copies of each partition when all is well, its owner's included. */
  readonly copiesDue: number
  /** Milliseconds to wait until that many copies of each partition run. */
  readonly wholeWithinMs: number
}

/** Longest time for one part, ms. */
const MAX_READ_MS = 600_000

/** Gathers all that can be judged. Never rejects: a part that cannot be read does not keep the others from being read. */
export async function gather(stage: Stage, options: GatherOptions): Promise<Gathered> {
  const missing: string[] = []
  const read = async <T>(what: string, work: () => Promise<T>): Promise<T | undefined> => {
    try {
      return await within(work(), MAX_READ_MS, tooLong)
    } catch (error) {
      missing.push(`${what}: ${reasonOf(error)}`)
      return undefined
    }
  }
  const { api, partitions, view } = stage
  const { prefix, ids } = options
  const answers = await read('the answers of the API', () => readApi(api, ids))
  const alone = await read('the answers for single devices', () => readAlone(api, ids))
  const reader = await read('the log', () => view.reader(stage))
  const log = reader && (await read('the log', () => readLog(reader, partitions, options)))
  const copies =
    log &&
    (await read('the stores', () => reader.readCopies({ prefix, partitions, statuses: log.input.statuses }, options)))
  await reader?.close()
  return { answers, alone, log, copies, missing }
}

function tooLong(): never {
  throw new Error(`not within ${MAX_READ_MS / 1000} s`)
}

async function readLog(reader: LogReader, partitions: number, options: GatherOptions): Promise<LogReading> {
  const { prefix, samples } = options
  const found = await reader.committed()
  const committed = Array.from({ length: partitions }, (_, i) => found[i] ?? { input: 0, changelogEnd: 0 })
  const input = new InputCount(
    prefix,
    committed.map((of) => of.input),
  )
  await reader.telemetry((partition, record) => input.take(partition, record))
  const removed = removedSince(reader.began, await reader.starts())
  const changelog = new ChangelogCheck(prefix, samples)
  const ends = committed.map((of) => of.changelogEnd)
  const changelogEnds = await reader.changelog(ends, (partition, record) => changelog.take(partition, record))
  changelog.finish()
  const deadLetters = await deadLettersOf(reader.log, prefix)
  return { input, removed, changelog, committed, changelogEnds, deadLetters }
}

async function deadLettersOf(log: Log, prefix: string): Promise<number> {
  let count = 0
  const take = ({ key }: LogRecord): void => {
    if (key?.startsWith(`${prefix}-`) === true) count++
  }
  for (let index = 0; index < log.identity.partitions; index++) await readRecords(log, 'dead-letters', index, take)
  return count
}

const LIMITS = { maxRecords: 2_000, maxBytes: 4 * 1024 * 1024 }

/** Gives all records of a partition; resolves with the offset after the last one. */
export async function readRecords(
  log: Log,
  topic: Topic,
  index: number,
  take: (record: LogRecord) => void,
): Promise<number> {
  const { start, end } = await log.bounds({ topic, index })
  if (start === end) return end
  const read = new AbortController()
  for await (const { records, next } of log.follow({ topic, index }, start, LIMITS, read.signal)) {
    for (const record of records) take(record)
    if (next >= end) read.abort()
  }
  return end
}
