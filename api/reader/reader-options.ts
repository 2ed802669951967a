import type { Logger } from 'pino'
import type { Owner, OwnerMap, PartitionReader } from '../../processor/contract/query.ts'

/** So long, ms, one copy has for an answer. */
export const ANSWER_WITHIN_MS = 1_000

export interface RoutedReaderOptions {
  readonly partitions: number
  readonly owners: () => Promise<OwnerMap>
  /**
   * The reader of one member; undefined when it cannot be reached. Called per question: it keeps what is costly. With `patient`
   * one that asks whether or not the member has answered lately, and waits longer than `answerWithinMs`.
   */
  readonly connect: (owner: Owner, patient: boolean) => PartitionReader | undefined
  readonly logger: Logger
  /** Of a clock that never goes back, ms. */
  readonly now: () => number
  /** Least time between two loads of the owner map, in ms; default 100. */
  readonly ownersMinAgeMs?: number
  /** The owner map is loaded anew when older than this, in ms; default 5,000. */
  readonly ownersMaxAgeMs?: number
  /** When a copy has not answered after this, in ms, the next one is asked; default ANSWER_WITHIN_MS. */
  readonly answerWithinMs?: number
  /** How long a search may wait in this process, in ms, before its member is asked: it has so much longer; default 0. */
  readonly searchQueuedMs?: number
  /** How long a read waits, in ms, for copies that are late when no other can answer; default 5,000. */
  readonly patienceMs?: number
  /**
   * How often all copies are asked by a new owner map, at least `ownersMinAgeMs` apart, while none can answer: a
   * partition that moves has one again soon. Default 1.
   */
  readonly attempts?: number
}
