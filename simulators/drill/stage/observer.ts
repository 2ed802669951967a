import type { Copy, Owner } from '../../../processor/contract/query.ts'
import { pause } from '../../../processor/runtime/pause.ts'
import type { Hold, Recorder } from '../report/journal.ts'
import type { Assigned, ClusterView } from './stage.ts'

const POLL_MS = 50
/** An answer of a member counts for this many milliseconds. */
const ANSWER_COUNTS_MS = 1_000

interface Answer {
  readonly copies: readonly Copy[]
  /** `performance.now()` when the member was asked, and when it answered. */
  readonly askedAt: number
  readonly at: number
}

/** Watches who holds each partition and how far it is, and records each change. */
export class Observer {
  readonly #view: ClusterView
  readonly #recorder: Recorder
  readonly #partitions: number
  readonly #answers = new Map<string, Answer>()
  readonly #asking = new Set<string>()
  readonly #holds: Hold[]
  /** Input offset at which the holder of a partition began; below 0: not known yet; undefined: the holder has moved on. */
  readonly #began: (number | undefined)[] = []
  readonly #furthest: number[] = []
  #assigned: Assigned = { stable: true, holders: new Map(), members: [] }
  #stable: boolean | undefined

  constructor(view: ClusterView, partitions: number, recorder: Recorder) {
    this.#view = view
    this.#recorder = recorder
    this.#partitions = partitions
    this.#holds = Array.from({ length: partitions }, (_, partition) => {
      return { at: 0, partition, instance: undefined, phase: 'none' as const }
    })
  }

  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      void this.#once('', () => this.#askGroup())
      for (const member of this.#assigned.members) {
        void this.#once(member.endpoint, () => this.#askMember(member))
      }
      await pause(POLL_MS, signal)
      // An answer that is too old changes the phase as well.
      this.#note()
    }
  }

  get assigned(): Assigned {
    return this.#assigned
  }

  /** The instance that holds the partition now, and its copy as it last answered, if it was asked after `since`. */
  owner(partition: number, since = 0): { readonly instance: string; readonly copy: Copy | undefined } | undefined {
    const holder = this.#assigned.holders.get(partition)
    if (holder === undefined) return undefined
    return { instance: holder.instance, copy: this.#copy(holder.endpoint, partition, 'owner', since) }
  }

  standbys(partition: number, since = 0): Copy[] {
    return this.#assigned.members.flatMap(({ endpoint }) => this.#copy(endpoint, partition, 'standby', since) ?? [])
  }

  /** The furthest input offset that an owner of the partition has told, and the lag that its owner tells now. */
  progress(partition: number): { readonly offset: number; readonly lag: number | undefined } {
    const copy = this.owner(partition)?.copy
    const offset = Math.max(this.#furthest[partition] ?? 0, copy?.offset ?? 0)
    this.#furthest[partition] = offset
    return { offset, lag: copy?.lag }
  }

  #copy(endpoint: string, partition: number, role: Copy['role'], since: number): Copy | undefined {
    const answer = this.#answers.get(endpoint)
    if (answer === undefined || answer.askedAt < since || performance.now() - answer.at > ANSWER_COUNTS_MS)
      return undefined
    return answer.copies.find((copy) => copy.partition === partition && copy.role === role)
  }

  /** Asks unless the same question is under way: a member that does not answer delays nobody else. */
  async #once(name: string, ask: () => Promise<void>): Promise<void> {
    if (this.#asking.has(name)) return
    this.#asking.add(name)
    try {
      await ask()
    } catch {
      // Kafka or a process is away, most likely because of the drill; the journal shows it as a phase.
    } finally {
      this.#asking.delete(name)
    }
  }

  async #askGroup(): Promise<void> {
    const assigned = await this.#view.assigned()
    // While the group rebalances it has no assignment to tell.
    this.#assigned = assigned.stable ? assigned : { ...this.#assigned, stable: false }
    const { elapsed: at, groupStates } = this.#recorder
    if (assigned.stable !== this.#stable) this.#recorder.add(groupStates, { at, stable: assigned.stable })
    this.#stable = assigned.stable
    this.#note()
  }

  async #askMember(member: Owner): Promise<void> {
    const askedAt = performance.now()
    const copies = await this.#view.copies(member)
    this.#answers.set(member.endpoint, { copies, askedAt, at: performance.now() })
    this.#note()
  }

  #note(): void {
    const { elapsed: at, holds, advances } = this.#recorder
    for (let partition = 0; partition < this.#partitions; partition++) {
      const owner = this.owner(partition)
      const instance = owner?.instance
      const before = this.#holds[partition] as Hold
      const same = before.instance === instance
      const phase = owner === undefined ? 'none' : (owner.copy?.state ?? 'unheard')
      if (!same || phase !== before.phase) {
        const hold: Hold = { at, partition, instance, phase }
        this.#holds[partition] = hold
        this.#recorder.add(holds, hold)
        if (!same || phase === 'restoring') this.#began[partition] = owner?.copy?.offset ?? -1
      }
      const began = this.#began[partition]
      const copy = owner?.copy
      if (began === undefined || copy === undefined || instance === undefined) continue
      if (began < 0) {
        this.#began[partition] = copy.offset
      } else if (copy.state === 'running' && copy.offset > began) {
        this.#began[partition] = undefined
        this.#recorder.add(advances, { at, partition, instance })
      }
    }
  }
}
