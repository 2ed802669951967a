import type { LogRecord } from '../../../processor/contract/record.ts'
import type { Status } from '../../../processor/contract/status.ts'
import { HEADER_INPUT } from '../../../processor/partition/commit.ts'
import type { KafkaRecord } from '../stage/kafka-client.ts'
import type { Committed } from '../stage/stage.ts'

/** How many findings of one kind are kept in words. */
const MAX_TOLD = 20

interface Last {
  readonly rev: number
  readonly session: number
  readonly ats: Readonly<Record<string, string>>
}

interface PartitionState {
  epoch: number
  /** How many epochs had records. */
  epochs: number
  /** Newest input offset of a commit. */
  input: number
  /** Samples of the committed offset in the order of their changelog ends, and the next one to judge. */
  readonly samples: readonly Committed[]
  judged: number
}

/** Reads the changelog in the order of the log, and records whatever goes back in it. */
export class ChangelogCheck {
  /** Last value by device, of the drill's devices only. */
  readonly values = new Map<string, string>()
  readonly wentBack: string[] = []
  wentBackCount = 0
  /** Records of an epoch after a record of a newer one: commits of a zombie. */
  revenants = 0
  /** Commits whose input offset does not grow: two owners were at work. */
  inputBack = 0
  readonly inputsBack: string[] = []
  /** Samples in which the committed offset contradicts the changelog, in words. */
  readonly unfit: string[] = []
  samples = 0
  /** Samples behind an earlier one: a coordinator forgot commits. That is allowed, because claims ask the changelog. */
  forgotten = 0
  records = 0
  readonly #prefix: string
  readonly #last = new Map<string, Last>()
  readonly #partitions: PartitionState[]

  /** `samples`: committed offsets as they were seen during the run, by partition, in the order of time. */
  constructor(prefix: string, samples: readonly (readonly Committed[])[]) {
    this.#prefix = `${prefix}-`
    this.#partitions = samples.map((of) => {
      let furthest = 0
      for (const { input } of of) {
        if (input < furthest) this.forgotten++
        furthest = Math.max(furthest, input)
      }
      return { epoch: -1, epochs: 0, input: 0, samples: of.toSorted(inOrder), judged: 0 }
    })
  }

  /** Epochs of all partitions. */
  get epochs(): number {
    return this.#partitions.reduce((sum, { epochs }) => sum + epochs, 0)
  }

  take(partition: number, record: LogRecord | KafkaRecord): void {
    const state = this.#partitions[partition]
    if (state === undefined) return
    this.records++
    this.#epoch(partition, state, record)
    this.#inputs(partition, state, record)
    if (record.key?.startsWith(this.#prefix) !== true) return
    if (record.value === null) this.values.delete(record.key)
    else this.#status(record.key, Buffer.from(record.value).toString())
  }

  /** Judges the samples that are left after the last record. */
  finish(): void {
    this.#partitions.forEach((state, partition) => this.#judge(partition, state, Infinity, Infinity))
  }

  #epoch(partition: number, state: PartitionState, record: LogRecord | KafkaRecord): void {
    if (!('epoch' in record)) return
    if (record.epoch < state.epoch) {
      this.revenants++
      this.#tell(
        this.inputsBack,
        `partition ${partition} at ${record.offset}: epoch ${record.epoch} after ${state.epoch}`,
      )
    } else if (record.epoch > state.epoch) {
      state.epoch = record.epoch
      state.epochs++
    }
  }

  #inputs(partition: number, state: PartitionState, { offset, headers }: LogRecord | KafkaRecord): void {
    const text = headers?.[HEADER_INPUT]
    if (text === undefined) return
    const input = Number(text)
    this.#judge(partition, state, offset, input)
    if (input <= state.input) {
      this.inputBack++
      this.#tell(this.inputsBack, `partition ${partition} at ${offset}: input ${input} after ${state.input}`)
    }
    state.input = Math.max(state.input, input)
  }

  /** Judges the samples whose changelog ends at or before `offset`, where the next commit has `nextInput`. */
  #judge(partition: number, state: PartitionState, offset: number, nextInput: number): void {
    for (; state.judged < state.samples.length; state.judged++) {
      const { input, changelogEnd } = state.samples[state.judged] as Committed
      if (!(changelogEnd <= offset) && offset !== Infinity) return
      this.samples++
      if (state.input <= input && nextInput > input) continue
      const around = `${state.input} before and ${nextInput} after it`
      this.#tell(this.unfit, `partition ${partition}: committed ${input} with changelog end ${changelogEnd}, ${around}`)
    }
  }

  #status(id: string, text: string): void {
    this.values.set(id, text)
    const { rev, connectivity, reported } = JSON.parse(text) as Status
    const ats: Record<string, string> = {}
    for (const name in reported) ats[name] = reported[name]?.at as string
    const before = this.#last.get(id)
    const what = before === undefined ? undefined : backward(before, rev, connectivity.session, ats)
    if (what !== undefined) {
      this.wentBackCount++
      this.#tell(this.wentBack, `${id}: ${what}`)
    }
    this.#last.set(id, { rev, session: connectivity.session, ats })
  }

  #tell(list: string[], what: string): void {
    if (list.length < MAX_TOLD) list.push(what)
  }
}

/** By changelog end; samples without one come last. */
function inOrder(a: Committed, b: Committed): number {
  const [from, to] = [a.changelogEnd, b.changelogEnd].map((end) => (Number.isNaN(end) ? Number.MAX_SAFE_INTEGER : end))
  return (from as number) - (to as number) || a.input - b.input
}

/** The first thing that went back between two states of a device; undefined: nothing did. */
export function backward(
  before: Last,
  rev: number,
  session: number,
  ats: Readonly<Record<string, string>>,
): string | undefined {
  if (rev < before.rev) return `rev ${before.rev}, then ${rev}`
  if (session < before.session) return `session ${before.session}, then ${session}`
  for (const name in before.ats) {
    const at = ats[name]
    if (at === undefined || at < (before.ats[name] as string)) return `${name} of ${before.ats[name]}, then ${at}`
  }
  return undefined
}
