import type { ChangelogCheck } from '../checks/changelog-check.ts'
import type { CopyReading, DeviceAnswer } from '../checks/copies.ts'
import type { InputCount } from '../checks/input-count.ts'
import type { Committed } from './foreign.ts'
import type { PartitionState } from './observer.ts'
import type { Stage } from './stage.ts'

/** What the log holds after a run. */
export interface LogReading {
  readonly input: Pick<InputCount, 'devices' | 'records' | 'statuses'>
  /** Of the telemetry since the drill began: what retention removed before it was read, in words; empty: nothing. */
  readonly removed: readonly string[]
  readonly changelog: ChangelogCheck
  /** By partition: what was committed at the end, and the changelog's last record. */
  readonly committed: readonly Committed[]
  readonly changelogEnds: readonly number[]
  /** Of the drill's devices. */
  readonly deadLetters: number
}

/** What API, log and stores hold after a run; undefined: it could not be looked at. */
export interface Gathered {
  readonly answers: ReadonlyMap<string, DeviceAnswer> | undefined
  readonly alone: Alone | undefined
  readonly log: LogReading | undefined
  readonly copies: readonly CopyReading[] | undefined
  /** What is undefined, and why. */
  readonly missing: readonly string[]
}

/** Answers for devices that were asked for one by one; those that the API does not know have none. */
export interface Alone {
  readonly asked: readonly string[]
  readonly answers: ReadonlyMap<string, DeviceAnswer>
}

export interface GatherOptions {
  readonly prefix: string
  readonly ids: readonly string[]
  /** Committed offsets seen during the run, by partition, in the order of time. */
  readonly samples: readonly (readonly Committed[])[]
  /** Copies of each partition, its owner's included, that there are when all is well. */
  readonly copiesDue: number
  /** How long these may take to be whole, ms; those that are not are missed by who judges. */
  readonly wholeWithinMs: number
}

/** A stage, and how to look behind it: Kafka, the embedded log, or a cluster that runs already. */
export interface Engine extends AsyncDisposable {
  readonly stage: Stage
  readonly sight: PartitionState
  /** Ends of the telemetry partitions; undefined where only the owners can tell. */
  ends(): Promise<readonly number[] | undefined>
  /** What is committed now, by partition; empty where that cannot be seen from outside. */
  committed(): Promise<readonly (Committed | undefined)[]>
  /** Never rejects. The embedded engine is stopped for it: nothing but disposal follows. */
  gather(options: GatherOptions): Promise<Gathered>
}
