import { pause } from '../../../processor/runtime/pause.ts'
import type { Mark, Recorder } from '../report/journal.ts'

/** What takes a process away, for a while or for good. */
const AWAY: ReadonlySet<string> = new Set(['kill', 'stop', 'freeze', 'cut'])
/**
 * What is over is felt for so long, ms: the API has to find who answers now, what waited is applied, and a machine that is
 * loaded takes its time for both.
 */
export const AFTERMATH_MS = 10_000
const LOOK_EVERY_MS = 100

export interface CalmParts {
  readonly recorder: Pick<Recorder, 'elapsed' | 'marks'>
  readonly processors: readonly string[]
  /** While a processor is away nobody stands in for it. */
  readonly alone: boolean
  /** Why not every partition has its owner and its standbys; undefined: it has. */
  readonly unsteady: () => string | undefined
}

/** For how long nothing has been disturbed, and nothing been amiss. */
export class Calm {
  readonly #parts: CalmParts
  /** When it was last seen not to be steady, ms since the drill began. */
  #unsteadyAt = 0

  constructor(parts: CalmParts) {
    this.#parts = parts
  }

  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      this.look()
      await pause(LOOK_EVERY_MS, signal)
    }
  }

  look(): void {
    if (this.#parts.unsteady() !== undefined) this.#unsteadyAt = this.#parts.recorder.elapsed
  }

  /** Ms. */
  get lasted(): number {
    return this.#since(this.#parts.recorder.marks)
  }

  /** A processor is away with nobody to stand in, or just was. */
  get orphaned(): boolean {
    const { recorder, processors, alone } = this.#parts
    if (!alone) return false
    const marks = recorder.marks.filter(({ target }) => processors.includes(target))
    return marks.some(({ verb }) => AWAY.has(verb)) && this.#since(marks) < AFTERMATH_MS
  }

  /** Ms since the last of `marks` was over, and it was not steady. */
  #since(marks: readonly Mark[]): number {
    const { elapsed } = this.#parts.recorder
    const disturbedAt = marks.reduce((last, { doneAt = elapsed }) => Math.max(last, doneAt), 0)
    return elapsed - Math.max(disturbedAt, this.#unsteadyAt)
  }
}
