import type { Freshness as Full } from '../../../processor/contract/query.ts'
import type { Offset } from '../../../processor/contract/record.ts'

/** As clients are told it. */
export type Freshness = Pick<Full, 'partition' | 'offset' | 'servedBy'>

/** From when a client asked until it had its answer, by one clock that never goes back, ms. */
export interface Interval {
  readonly invoked: number
  readonly completed: number
  /** The API process that answered; undefined: one was replaced by another meanwhile. */
  readonly by: string | undefined
}

/** One device, as an answer has it. `text`: JSON of its status; undefined: it is not known. */
export interface Answer {
  readonly deviceId: string
  readonly text: string | undefined
  readonly freshness: Freshness
}

/** Devices asked for by their ids. `atLeast`: the offset of a record that the answer must include. */
export interface Read extends Interval {
  readonly answers: readonly Answer[]
  readonly atLeast: Offset | undefined
}

/**
 * How a write completed, as Jepsen has it. `ok`: it is in the log, and has this outcome, or one that was not waited for.
 * `fail`: it was never sent. `info`: nobody can say, now or ever, whether it happened; so it is under way for good.
 */
export type Completion =
  | { readonly type: 'ok'; readonly outcome: 'applied' | 'stale' | 'unknown-device' | undefined }
  | { readonly type: 'fail' }
  | { readonly type: 'info' }

export interface Write extends Interval {
  readonly deviceId: string
  readonly partition: number
  /** Of one write alone: an attribute of what it leaves. Undefined: it is a deletion. */
  readonly token: string | undefined
  /** As in the header. */
  readonly ifMatch: string | undefined
  readonly completion: Completion
  /** Where it is in the log, when the answer tells. */
  readonly offset: Offset | undefined
  readonly answer: Answer | undefined
}

/** A page with all devices that match `q`, or all there are. */
export interface List extends Interval {
  readonly q: string | undefined
  readonly answers: readonly Answer[]
}

/** Devices that match `q`, and of them those with these values, absent ones being null. */
export interface Count extends Interval {
  readonly q: string | undefined
  readonly group: { readonly state: unknown; readonly team: unknown } | undefined
  readonly count: number
  readonly freshness: readonly Freshness[]
}

/** What a follower was told of changes. `connection`: those of one have an order. */
export interface Told {
  readonly follower: string
  readonly q: string | undefined
  readonly connection: number
  readonly event: 'enter' | 'change' | 'leave' | 'reset'
  readonly deviceId: string | undefined
  readonly text: string | undefined
}

/** What somebody holds of all devices that match, by id, once everything is at rest. */
export interface Holding {
  readonly holder: string
  readonly q: string | undefined
  readonly deviceId: string | undefined
  readonly devices: ReadonlyMap<string, string>
}

/** What concurrent clients did and saw. */
export class History {
  readonly reads: Read[] = []
  readonly writes: Write[] = []
  readonly lists: List[] = []
  readonly counts: Count[] = []
  readonly told: Told[] = []
  readonly holdings: Holding[] = []

  /** Each device that any answer shows, with the answer's interval. */
  answers(): (Answer & Interval)[] {
    const read = [...this.reads, ...this.lists].flatMap(({ answers, invoked, completed, by }) => {
      return answers.map((answer) => ({ ...answer, invoked, completed, by }))
    })
    const written = this.writes.flatMap(({ answer, invoked, completed, by }) => {
      return answer === undefined ? [] : [{ ...answer, invoked, completed, by }]
    })
    return [...read, ...written]
  }
}
