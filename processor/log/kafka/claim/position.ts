import { type LogIdentity, type LogRecord, type NewRecord, type Offset, readRange } from '../../log.ts'
import type { ClaimContext } from './claim-context.ts'

/**
 * Header of the last changelog record of each commit: the input offset committed with it, the id of the input topic, and
 * the group that committed.
 */
export const HEADER_POSITION = 'position'

/** Records read at once. */
const READ = { maxRecords: 10_000, maxBytes: 8 * 1024 * 1024 }
/** Offsets looked through first, from the end on back; ten times as many when none of them tells. */
const SPAN = 10_000

/** A commit as the changelog itself tells of it. */
export interface RecordedCommit {
  readonly input: Offset
  readonly changelogEnd: Offset
  /** Id of the topic that `input` is an offset of. */
  readonly telemetry: string
  /** Undefined in what versions before this wrote. */
  readonly group: string | undefined
}

/** The records of a commit, of which the last one tells that it was made with `next`. */
export function withCommitHeader(
  changelog: readonly NewRecord[],
  next: Offset,
  { telemetry }: Pick<LogIdentity, 'telemetry'>,
  group: string,
): readonly NewRecord[] {
  const last = changelog.at(-1)
  if (last === undefined) return changelog
  const headers = { ...last.headers, [HEADER_POSITION]: `${next} ${telemetry} ${group}` }
  return changelog.with(changelog.length - 1, { ...last, headers })
}

/**
 * The last commit whose records stand in the changelog at `from` or after it; undefined for none. Compaction leaves it
 * findable: it keeps the last record of each key.
 */
export async function lastRecordedCommit(
  context: ClaimContext,
  partition: number,
  from: Offset,
  signal: AbortSignal,
): Promise<RecordedCommit | undefined> {
  const changelog = { topic: 'status', index: partition } as const
  const { start, end } = await context.bounds(changelog)
  const first = Math.max(start, from)
  for (let span = SPAN; ; span *= 10) {
    const since = Math.max(first, end - span)
    let last: RecordedCommit | undefined
    for await (const { records } of readRange(context, changelog, since, end, READ, signal)) {
      for (const record of records) last = told(record) ?? last
    }
    if (last !== undefined || since === first) return last
  }
}

/** Whether a committed record stands in the changelog at `from` or after it. */
export async function hasRecordsFrom(
  context: ClaimContext,
  partition: number,
  from: Offset,
  signal: AbortSignal,
): Promise<boolean> {
  const changelog = { topic: 'status', index: partition } as const
  const { start, end } = await context.bounds(changelog)
  for await (const { records } of readRange(context, changelog, Math.max(start, from), end, READ, signal)) {
    if (records.length > 0) return true
  }
  return false
}

/** Undefined for a record that is not the last of a commit, or of another writer. */
function told({ headers, offset }: LogRecord): RecordedCommit | undefined {
  const [input = '', telemetry = '', group] = headers?.[HEADER_POSITION]?.split(' ') ?? []
  if (!/^\d{1,15}$/.test(input) || telemetry === '') return undefined
  return { input: Number(input), changelogEnd: offset + 1, telemetry, group }
}

/** What travels with a committed offset. */
export interface CommittedPosition extends Pick<LogIdentity, 'telemetry' | 'status'> {
  readonly changelogEnd: Offset
  /** Of the leader that the last records before the offset were written by; undefined when they were not read. */
  readonly epoch: number | undefined
  /** Of either topic; undefined in what versions before this wrote. */
  readonly partitions: number | undefined
}

export function encodePosition({ changelogEnd, telemetry, status, epoch, partitions }: CommittedPosition): string {
  return `${changelogEnd} ${telemetry} ${status} ${epoch ?? ''} ${partitions ?? ''}`.trimEnd()
}

/** Undefined for what somebody else has written. */
export function decodePosition(metadata: string): CommittedPosition | undefined {
  const [end = '', telemetry = '', status = '', epoch = '', partitions = ''] = metadata.split(' ')
  if (!/^\d{1,15}$/.test(end) || telemetry === '' || status === '') return undefined
  return {
    changelogEnd: Number(end),
    telemetry,
    status,
    epoch: smallNumber(epoch),
    partitions: smallNumber(partitions),
  }
}

function smallNumber(text: string): number | undefined {
  return /^\d{1,10}$/.test(text) ? Number(text) : undefined
}
