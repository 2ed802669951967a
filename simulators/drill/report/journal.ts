/** The journal of a run, on one time axis: milliseconds since the drill began. It is kept in memory, so each list has a bound. */

/** A disturbance, or its end. */
export interface Mark {
  readonly at: number
  /** kill, start, freeze, … */
  readonly verb: string
  /** The process it was done to. */
  readonly target: string
  /** When it was done; undefined before that, and when it failed. */
  doneAt?: number
}

/** The error that ended the disturbances early. */
export interface Failure {
  readonly at: number
  /** What could not be done, in a few words. */
  readonly what: string
  /** One line. */
  readonly why: string
}

/** From `at` on, `instance` holds the partition, as the group says, in the `phase` that the instance says. */
export interface Hold {
  readonly at: number
  readonly partition: number
  readonly instance: string | undefined
  /** `none`: nobody holds it. `unheard`: the holder does not answer. */
  readonly phase: 'none' | 'unheard' | 'restoring' | 'running'
}

/** A first commit by a new holder, as its input offset shows. */
export interface Advance {
  readonly at: number
  readonly partition: number
  readonly instance: string
}

/** Whether the group is stable; it rebalances when a member comes or is missed. */
export interface GroupState {
  readonly at: number
  readonly stable: boolean
}

/** Rates per second since the sample before. */
export interface Sample {
  readonly at: number
  readonly sent: number
  readonly acknowledged: number
  readonly applied: number
  /** Telemetry records not yet applied, over all partitions; undefined while it is unknown. */
  readonly lag: number | undefined
  /** Age of the oldest answer, ms; 0 when none was stale. */
  readonly staleMs: number
  readonly reads: number
  readonly failures: number
}

export interface Journal {
  /** ISO 8601 time at which `at` is 0. */
  readonly startedAt: string
  readonly partitions: number
  readonly marks: readonly Mark[]
  readonly holds: readonly Hold[]
  readonly advances: readonly Advance[]
  readonly groupStates: readonly GroupState[]
  readonly samples: readonly Sample[]
  readonly failure: Failure | undefined
  /** When the load ended, and when the cluster was at rest. */
  readonly loadEndedAt: number
  readonly quietAt: number | undefined
}

/** Most entries of a list; then the oldest ones go. */
const MAX_ENTRIES = 20_000

export class Recorder {
  readonly #began = performance.now()
  readonly startedAt: string
  readonly marks: Mark[] = []
  readonly holds: Hold[] = []
  readonly advances: Advance[] = []
  readonly groupStates: GroupState[] = []
  readonly samples: Sample[] = []

  /** `now`: epoch ms. */
  constructor(now: number) {
    this.startedAt = new Date(now).toISOString()
  }

  get elapsed(): number {
    return Math.round(performance.now() - this.#began)
  }

  add<T>(list: T[], entry: T): void {
    list.push(entry)
    if (list.length > MAX_ENTRIES) list.shift()
  }
}

/** A duration over all partitions and disturbances for which it was measured, ms. */
export interface Span {
  readonly count: number
  readonly p50: number
  readonly p95: number
  readonly worst: number
}

/** How long the steps after a disturbance took; undefined where a step did not happen. */
export interface Times {
  /** From the disturbance until the group begins to rebalance. */
  readonly detection: Span | undefined
  /** From the disturbance until another instance holds the partition. */
  readonly reassignment: Span | undefined
  /** From then until the new owner runs. */
  readonly restore: Span | undefined
  /** From the disturbance until the new owner has committed. */
  readonly firstCommit: Span | undefined
  /** From the disturbance until the lag is as it was just before. */
  readonly lagNormal: Span | undefined
}

/** Lag is normal again when it is at most its 95th percentile of just before, and a tenth of a second of messages. */
const NORMAL_PERCENTILE = 0.95

/** How much time before a disturbance counts, ms: a fleet that comes up is no measure. */
const NORMAL_OF_MS = 5_000

const NORMAL_SECONDS = 0.1

/** Pure. The observer polls every 50 ms, which bounds the precision. */
export function timesOf(journal: Journal): Times {
  const detection: number[] = []
  const reassignment: number[] = []
  const restore: number[] = []
  const firstCommit: number[] = []
  const lagNormal: number[] = []
  journal.marks.forEach((mark, i) => {
    const until = journal.marks[i + 1]?.at ?? Infinity
    const unstable = journal.groupStates.find(({ at, stable }) => !stable && at >= mark.at && at < until)
    if (unstable !== undefined) detection.push(unstable.at - mark.at)
    for (let partition = 0; partition < journal.partitions; partition++) {
      const moved = movedIn(journal, partition, mark.at, until)
      if (moved === undefined) continue
      reassignment.push(moved.at - mark.at)
      const its = (entry: { partition: number; instance: string | undefined }): boolean =>
        entry.partition === partition && entry.instance === moved.instance
      const running = journal.holds.find((hold) => hold.at >= moved.at && its(hold) && hold.phase === 'running')
      if (running !== undefined) restore.push(running.at - moved.at)
      const advance = journal.advances.find((entry) => entry.at >= moved.at && its(entry))
      if (advance !== undefined) firstCommit.push(advance.at - mark.at)
    }
    const normal = backToNormal(journal, mark, until)
    if (normal !== undefined) lagNormal.push(normal)
  })
  return {
    detection: span(detection),
    reassignment: span(reassignment),
    restore: span(restore),
    firstCommit: span(firstCommit),
    lagNormal: span(lagNormal),
  }
}

/** The hold by which another instance got the partition between the two times. */
function movedIn({ holds }: Journal, partition: number, from: number, until: number): Hold | undefined {
  const its = holds.filter((hold) => hold.partition === partition && hold.instance !== undefined)
  const before = its.findLast((hold) => hold.at < from)
  return its.find((hold) => hold.at >= from && hold.at < until && hold.instance !== before?.instance)
}

function backToNormal({ samples }: Journal, mark: Mark, until: number): number | undefined {
  const before = samples
    .filter(({ at }) => at < mark.at && at >= mark.at - NORMAL_OF_MS)
    .flatMap(({ lag }) => lag ?? [])
  if (before.length === 0) return undefined
  const sent = samples.findLast(({ at }) => at <= mark.at)?.sent ?? 0
  const normal = percentile(before, NORMAL_PERCENTILE) + sent * NORMAL_SECONDS
  const after = samples.filter(({ at }) => at >= mark.at && at < until)
  // An unknown lag counts as risen only when no sample shows a rise.
  const risen = after.find(({ lag = 0 }) => lag > normal) ?? after.find(({ lag }) => lag === undefined)
  if (risen === undefined) return 0
  const back = after.find(({ at, lag = Infinity }) => at >= risen.at && lag <= normal)
  return back === undefined ? undefined : back.at - mark.at
}

function span(values: readonly number[]): Span | undefined {
  if (values.length === 0) return undefined
  const round = Math.round
  return {
    count: values.length,
    p50: round(percentile(values, 0.5)),
    p95: round(percentile(values, 0.95)),
    worst: round(Math.max(...values)),
  }
}

/** Nearest rank. */
function percentile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b)
  return sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)] as number
}
