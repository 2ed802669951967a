/** What a run was, on one time axis: ms since the load began. All of it is kept in memory, so each list has a bound. */

/** A disturbance, or its end. */
export interface Mark {
  readonly at: number
  /** kill, start, freeze, … */
  readonly verb: string
  /** The process it was done to. */
  readonly target: string
  /** When it was done: a start takes its time. Undefined before that, and when it failed. */
  doneAt?: number
}

/** What ended the disturbances before their time. */
export interface Failure {
  readonly at: number
  /** What could not be done, in a few words. */
  readonly what: string
  /** One line. */
  readonly why: string
}

/** From `at` on the group says that `instance` holds the partition, which says of itself what `phase` tells. */
export interface Hold {
  readonly at: number
  readonly partition: number
  readonly instance: string | undefined
  /** `none`: nobody holds it. `unheard`: the holder has not said that it runs. */
  readonly phase: 'none' | 'unheard' | 'restoring' | 'running'
}

/** A first commit by a new holder, as its input offset shows. */
export interface Advance {
  readonly at: number
  readonly partition: number
  readonly instance: string
}

/** What the group's coordinator says of itself; it rebalances from when a member is missed or comes. */
export interface GroupState {
  readonly at: number
  readonly stable: boolean
}

/** Of the time since the sample before. Rates are a second's. */
export interface Sample {
  readonly at: number
  readonly sent: number
  readonly acknowledged: number
  readonly applied: number
  /** Telemetry records not yet applied, over all partitions; undefined while nobody could tell. */
  readonly lag: number | undefined
  /** The oldest answer since the sample before, ms; 0 when none lacked anything. */
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
  /** When the load ended, and when all was quiet. */
  readonly loadEndedAt: number
  readonly quietAt: number | undefined
}

/** Entries of each list; a run that makes more goes on without the oldest. */
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
