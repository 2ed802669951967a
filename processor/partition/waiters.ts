import { UnavailableError } from '../contract/errors.ts'
import { OUTCOMES, type Outcome } from '../contract/write.ts'
import type { Headers, Offset } from '../log/log.ts'

/** Readers that wait on one partition; further ones are refused. */
const MAX_WAITERS = 1024

interface Waiter {
  readonly offset: Offset
  settle(reached: boolean): void
}

/** Readers that wait until the copy of one partition has applied a certain record, as one does who reads its own write. */
export class PositionWaiters {
  readonly #waiters = new Set<Waiter>()

  /**
   * True once the record at `offset` is applied; false when it is not after `withinMs`, or the copy is given up.
   * Rejects with UnavailableError at the bound.
   */
  applied(offset: Offset, withinMs: number): Promise<boolean> {
    if (withinMs <= 0) return Promise.resolve(false)
    if (this.#waiters.size >= MAX_WAITERS) {
      const reason = `${MAX_WAITERS} questions wait for the partition already`
      return Promise.reject(new UnavailableError('PARTITION_UNAVAILABLE', reason))
    }
    return new Promise((resolve) => {
      const settle = (reached: boolean): void => {
        clearTimeout(timer)
        this.#waiters.delete(waiter)
        resolve(reached)
      }
      const waiter = { offset, settle }
      const timer = setTimeout(() => settle(false), withinMs)
      this.#waiters.add(waiter)
    })
  }

  /** The copy has applied all input before `input`. */
  reached(input: Offset): void {
    if (this.#waiters.size === 0) return
    for (const waiter of this.#waiters) if (waiter.offset < input) waiter.settle(true)
  }

  /** The copy moves no further: whoever waits asks another. */
  release(): void {
    for (const waiter of this.#waiters) waiter.settle(false)
  }
}

/** The outcome of the write at `offset` of the partition's telemetry. */
export interface Decision {
  readonly offset: Offset
  readonly outcome: Outcome
}

/**
 * Header of a changelog record: the outcomes of the writes to its device that are committed with it, so that the next owner
 * can tell them too.
 */
const HEADER_DECIDED = 'decided'

/** Outcomes in one header; of more, the last ones. */
const MAX_IN_HEADER = 64
/** Outcomes remembered of one partition, a minute of 70 writes a second; the oldest are forgotten. */
const MAX_REMEMBERED = 4096

export function decidedHeader(decisions: readonly Decision[]): Headers {
  const told = decisions.slice(-MAX_IN_HEADER).map(({ offset, outcome }) => `${offset}:${outcome}`)
  return { [HEADER_DECIDED]: told.join(',') }
}

/** Skips whatever another writer of the topic put there. */
function decisionsIn(headers: Headers): Decision[] {
  const decisions: Decision[] = []
  for (const told of headers[HEADER_DECIDED]?.split(',') ?? []) {
    const [offset, outcome] = told.split(':')
    const known = OUTCOMES.find((one) => one === outcome)
    if (known !== undefined && Number.isSafeInteger(Number(offset)))
      decisions.push({ offset: Number(offset), outcome: known })
  }
  return decisions
}

/** The outcomes of the last writes to one partition. They are committed facts, kept from role to role. */
export class WriteOutcomes {
  readonly #outcomes = new Map<Offset, Outcome>()

  note(decisions: readonly Decision[]): void {
    for (const { offset, outcome } of decisions) {
      this.#outcomes.set(offset, outcome)
      if (this.#outcomes.size <= MAX_REMEMBERED) continue
      const [oldest] = this.#outcomes.keys()
      this.#outcomes.delete(oldest as Offset)
    }
  }

  /** Notes what a record of the changelog tells. */
  noteHeaders(headers: Headers): void {
    if (headers[HEADER_DECIDED] !== undefined) this.note(decisionsIn(headers))
  }

  /** Undefined when it is unknown here, is no write, or is forgotten. */
  of(offset: Offset): Outcome | undefined {
    return this.#outcomes.get(offset)
  }
}
