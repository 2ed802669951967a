import { OUTCOMES, type Outcome } from '../contract/write.ts'
import type { Headers, Offset } from '../log/log.ts'

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
