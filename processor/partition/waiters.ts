import { UnavailableError } from '../contract/errors.ts'
import { OUTCOMES, type Outcome } from '../contract/write.ts'
import type { Headers, Offset } from '../log/log.ts'

/** Questions held of one partition; further ones are refused: a thousand clients that wait for their own writes. */
const MAX_HELD = 1024

interface Held {
  readonly offset: Offset
  settle(arrived: boolean): void
}

/** Those who wait until the copy of one partition includes some record: they are told when it does, and need not ask. */
export class Arrivals {
  readonly #held = new Set<Held>()

  /**
   * True when the record at `offset` is included; false when it is not after `withinMs`, or the copy is given up.
   * Rejects with UnavailableError at the bound.
   */
  past(offset: Offset, withinMs: number): Promise<boolean> {
    if (withinMs <= 0) return Promise.resolve(false)
    if (this.#held.size >= MAX_HELD) {
      const reason = `${MAX_HELD} questions wait for the partition already`
      return Promise.reject(new UnavailableError('PARTITION_UNAVAILABLE', reason))
    }
    return new Promise((resolve) => {
      const settle = (arrived: boolean): void => {
        clearTimeout(timer)
        this.#held.delete(held)
        resolve(arrived)
      }
      const held = { offset, settle }
      const timer = setTimeout(() => settle(false), withinMs)
      this.#held.add(held)
    })
  }

  /** The copy includes all input before `input`. */
  reached(input: Offset): void {
    if (this.#held.size === 0) return
    for (const held of this.#held) if (held.offset < input) held.settle(true)
  }

  /** The copy moves no further: whoever waits is to ask another. */
  release(): void {
    for (const held of this.#held) held.settle(false)
  }
}

/** What became of the write at `offset` of the partition's telemetry. */
export interface Decision {
  readonly offset: Offset
  readonly outcome: Outcome
}

/**
 * Header of a changelog record: the decisions on writes of its device that are committed with it, so that whoever takes
 * the partition over can still tell them to those who ask.
 */
const HEADER_DECIDED = 'decided'

/** Decisions on one device that one record tells of; of more, the last ones. */
const MAX_TOLD = 64
/** Decisions remembered of one partition; the oldest are forgotten: a minute of 70 writes a second. */
const MAX_REMEMBERED = 4096

export function decidedHeader(decisions: readonly Decision[]): Headers {
  const told = decisions.slice(-MAX_TOLD).map(({ offset, outcome }) => `${offset}:${outcome}`)
  return { [HEADER_DECIDED]: told.join(',') }
}

/** What another writer of the topic put there, and is no decision, is left out. */
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

/** The last decisions on writes to one partition, whatever role it has here. They are facts: nothing takes them back. */
export class Decisions {
  readonly #outcomes = new Map<Offset, Outcome>()

  note(decisions: readonly Decision[]): void {
    for (const { offset, outcome } of decisions) {
      this.#outcomes.set(offset, outcome)
      if (this.#outcomes.size <= MAX_REMEMBERED) continue
      const [oldest] = this.#outcomes.keys()
      this.#outcomes.delete(oldest as Offset)
    }
  }

  /** `headers`: of a record of the changelog. */
  noteTold(headers: Headers): void {
    if (headers[HEADER_DECIDED] !== undefined) this.note(decisionsIn(headers))
  }

  /** Undefined when it was not decided here, is no write, or is forgotten. */
  of(offset: Offset): Outcome | undefined {
    return this.#outcomes.get(offset)
  }
}
