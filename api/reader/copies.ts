import type { Logger } from 'pino'
import { TidemarkError } from '../../processor/contract/errors.ts'
import type {
  Answer,
  Copy,
  Freshness,
  Owner,
  OwnerMap,
  PartitionInfo,
  PartitionReader,
} from '../../processor/contract/query.ts'
import { LateError } from './exchange.ts'

/** What members say of the copies they hold. */
export interface Copies {
  readonly all: readonly Copy[]
  /** A member has not answered in time, and may hold further ones. */
  readonly late: boolean
}

/** Asks every member of `map`. One that does not answer leaves its copies out. */
export async function copiesOf(map: OwnerMap, ask: (member: Owner) => Promise<Copy[]>): Promise<Copies> {
  const members = new Map<string, Owner>()
  for (const { active, standbys } of map.values()) {
    for (const owner of active === undefined ? standbys : [active, ...standbys]) members.set(owner.endpoint, owner)
  }
  let late = false
  const answers = Array.from(members.values(), async (member) => {
    try {
      return await ask(member)
    } catch (error) {
      if (!(error instanceof TidemarkError)) throw error
      late ||= error instanceof LateError
      return []
    }
  })
  return { all: (await Promise.all(answers)).flat(), late }
}

/** Every partition is there, with or without an owner. */
export function partitionsOf(map: OwnerMap, partitions: number, copies: readonly Copy[]): PartitionInfo[] {
  return Array.from({ length: partitions }, (_, partition) => {
    const here = copies.filter((copy) => copy.partition === partition)
    const active = map.get(partition)?.active?.instance
    return {
      partition,
      owner: ownerAmong(here, active),
      standbys: here.filter((copy) => copy.role === 'standby'),
    }
  })
}

/** Two members may hold themselves for the owner while a partition moves; then the map decides, then who is further. */
function ownerAmong(copies: readonly Copy[], active: string | undefined): Copy | undefined {
  const owners = copies.filter((copy) => copy.role === 'owner')
  return (
    owners.find((copy) => copy.instance === active) ?? owners.sort((a, b) => b.changelogOffset - a.changelogOffset)[0]
  )
}

/** How an answer tells how fresh it is. */
export interface Dated<T> {
  of(answer: T): Freshness | undefined
  as(answer: T, freshness: Freshness): T
}

export function whole<T extends { readonly freshness: Freshness }>(): Dated<T> {
  return { of: ({ freshness }) => freshness, as: (answer, freshness) => ({ ...answer, freshness }) }
}

/** Of one partition: they are equally fresh. */
export const EACH: Dated<Answer[]> = {
  of: ([first]) => first?.freshness,
  as: (answers, freshness) => answers.map((answer) => ({ ...answer, freshness })),
}

/** The same answer, of a copy that is not the owner, whatever it takes itself for. */
export function ofStandby<T>(answer: T, dated: Dated<T>): T {
  const freshness = dated.of(answer)
  return freshness?.servedBy === 'owner' ? dated.as(answer, { ...freshness, servedBy: 'standby' }) : answer
}

/** By the input first: changelog positions of what was aborted tell nothing. */
export function isFurther(a: Freshness | undefined, b: Freshness | undefined): boolean {
  if (a === undefined || b === undefined) return a !== undefined
  return a.offset === b.offset ? a.changelog > b.changelog : a.offset > b.offset
}

/** Most ids in one gathered question; more are asked in a question of their own. */
const MAX_GATHERED = 2_048

interface Waiting {
  readonly deviceIds: string[]
  readonly settle: { resolve(answer: Answer): void; reject(error: unknown): void }[]
}

/** Takes the answer to the id at `place` of a question. */
export type Settle = (place: number, answer: Answer | Error) => void

type Ask = (deviceIds: readonly string[], settle: Settle) => Promise<void>

/**
 * Reads of single devices that arrive in one turn of the event loop become one question: a store answers a batch many
 * times faster than its parts one by one, and another process is asked once.
 */
export class Gather {
  readonly #ask: Ask
  #waiting: Waiting | undefined

  constructor(ask: Ask) {
    this.#ask = ask
  }

  get(deviceId: string): Promise<Answer> {
    return new Promise((resolve, reject) => {
      if (this.#waiting === undefined) {
        this.#waiting = { deviceIds: [], settle: [] }
        setImmediate(this.#flush)
      }
      const { deviceIds, settle } = this.#waiting
      deviceIds.push(deviceId)
      settle.push({ resolve, reject })
      if (deviceIds.length >= MAX_GATHERED) this.#flush()
    })
  }

  readonly #flush = (): void => {
    const waiting = this.#waiting
    this.#waiting = undefined
    if (waiting !== undefined) void this.#send(waiting)
  }

  /** Never rejects: what goes wrong is told to those who wait. */
  async #send({ deviceIds, settle }: Waiting): Promise<void> {
    try {
      await this.#ask(deviceIds, (place, answer) => {
        if (answer instanceof Error) settle[place]?.reject(answer)
        else settle[place]?.resolve(answer)
      })
    } catch (error) {
      // Of those that have their answer nothing changes.
      for (const waiter of settle) waiter.reject(error)
    }
  }
}

/**
 * For how long an answer of a standby counts, ms: an owner that is behind it ends the commit that it lacks, or loses its claim,
 * in much less.
 */
const COUNTS_MS = 60_000

type Reached = Pick<Freshness, 'partition' | 'offset' | 'changelog'>

/**
 * How far the answers of standbys went that were given, by partition. An owner that is behind them lacks a commit, or has been
 * replaced, and does not know it: nobody who reads through this process is to see a device go back for that.
 *
 * By both positions: a standby that has read a commit in part is further by the changelog alone; and where Kafka lost a
 * commit that it had acknowledged, the next owner is as far by the changelog, of which it has read more, and not by the input.
 */
export class Shown {
  readonly #now: () => number
  /** Ends of the input and of the changelog, and when they were shown. */
  readonly #input: Float64Array
  readonly #changelog: Float64Array
  readonly #at: Float64Array

  /** `now`: of a clock that never goes back, ms. */
  constructor(partitions: number, now: () => number) {
    this.#now = now
    this.#input = new Float64Array(partitions)
    this.#changelog = new Float64Array(partitions)
    this.#at = new Float64Array(partitions).fill(Number.NEGATIVE_INFINITY)
  }

  /**
   * As much shown once more does not count for longer: a standby also counts the marker that ends a transaction, which its
   * owner has not read, so the owner of a partition that rests would be behind for as long as somebody reads.
   */
  note({ partition, offset, changelog }: Reached): void {
    const counts = this.#counts(partition)
    const input = counts ? (this.#input[partition] as number) : 0
    const before = counts ? (this.#changelog[partition] as number) : 0
    if (counts && offset <= input && changelog <= before) return
    this.#input[partition] = Math.max(offset, input)
    this.#changelog[partition] = Math.max(changelog, before)
    this.#at[partition] = this.#now()
  }

  /** More was shown than what a copy holds that has reached so much. */
  exceeds({ partition, offset, changelog }: Reached): boolean {
    const isBehind = offset < (this.#input[partition] as number) || changelog < (this.#changelog[partition] as number)
    return isBehind && this.#counts(partition)
  }

  #counts(partition: number): boolean {
    return this.#now() - (this.#at[partition] as number) < COUNTS_MS
  }
}

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
