import { type LogIdentity, type LogRecord, type NewRecord, type Offset, readRange } from '../../log.ts'
import type { ClaimContext } from './claim-context.ts'

/**
 * Where a commit stands. Kafka keeps it in two places: as the metadata of the committed offset, and in a header of the
 * commit's last changelog record, from which it is read when the group's coordinator has lost the offset.
 */
export interface CommittedPosition extends Pick<LogIdentity, 'telemetry' | 'status' | 'partitions'> {
  readonly changelogEnd: Offset
  /** Epoch of the leader that wrote the last record before the offset; undefined when none was read. */
  readonly epoch: number | undefined
}

export function encodePosition({ changelogEnd, telemetry, status, epoch, partitions }: CommittedPosition): string {
  return `${changelogEnd} ${telemetry} ${status} ${epoch ?? ''} ${partitions}`
}

const METADATA = /^(\d{1,15}) (\S+) (\S+) (\d{0,10}) (\d{1,10})$/

/** Undefined for metadata of another program. */
export function decodePosition(metadata: string): CommittedPosition | undefined {
  const [match, end, telemetry = '', status = '', epoch = '', partitions] = METADATA.exec(metadata) ?? []
  if (match === undefined) return undefined
  return {
    changelogEnd: Number(end),
    telemetry,
    status,
    epoch: epoch === '' ? undefined : Number(epoch),
    partitions: Number(partitions),
  }
}

/** A changelog header: the input offset of the commit, the id of the input topic, and the group. */
export const HEADER_POSITION = 'position'

/** A commit as the changelog records it. */
export interface RecordedCommit {
  readonly input: Offset
  readonly changelogEnd: Offset
  /** Id of the topic that `input` is an offset of. */
  readonly telemetry: string
  readonly group: string
}

/** The same records, the last of them with the header. */
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

/** Records read at once. */
const READ = { maxRecords: 10_000, maxBytes: 8 * 1024 * 1024 }
/** The first search covers this many offsets before the end; each further one ten times as many. */
const SPAN = 10_000

/**
 * The last commit that is recorded in the changelog at `from` or after it. Compaction never removes it: it keeps the newest
 * record of each key, and the newest record of all is one.
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
      for (const record of records) last = commitIn(record) ?? last
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

/** Undefined for a record that is not the last of a commit, or that another program wrote. */
function commitIn({ headers, offset }: LogRecord): RecordedCommit | undefined {
  const [match, input, telemetry = '', group = ''] =
    /^(\d{1,15}) (\S+) (\S+)$/.exec(headers?.[HEADER_POSITION] ?? '') ?? []
  return match === undefined ? undefined : { input: Number(input), changelogEnd: offset + 1, telemetry, group }
}
