import { pause } from '../../processor/pause.ts'
import type { Engine } from './engine.ts'
import type { Committed } from './foreign.ts'
import type { Recorder } from './journal.ts'
import type { Observer } from './observer.ts'
import type { Readers } from './readers.ts'
import type { Sending } from './sending.ts'
import type { Traffic } from './traffic.ts'

/** Samples of one run, at most; a longer run is sampled less often. */
const MAX_SAMPLES = 7_200
const MIN_EVERY_MS = 250
/** Committed offsets kept per partition; then every other one is let go of. */
const MAX_COMMITTED = 10_000

export interface SamplerParts {
  readonly engine: Engine
  readonly observer: Observer
  readonly recorder: Recorder
  readonly traffic: Traffic
  readonly readers: Readers
  readonly sending: Sending
  readonly seconds: number
}

/** Writes down rates, lag and reads, and looks at what is committed, several times a second. */
export class Sampler {
  readonly #parts: SamplerParts
  /** Distinct committed offsets as seen, by partition, in the order of time. */
  readonly committed: Committed[][]
  #ends: readonly number[] | undefined
  #asking = false

  constructor(parts: SamplerParts) {
    this.#parts = parts
    this.committed = Array.from({ length: parts.engine.stage.partitions }, () => [])
  }

  async run(signal: AbortSignal): Promise<void> {
    const { recorder, seconds } = this.#parts
    const everyMs = Math.max(MIN_EVERY_MS, (seconds * 1000) / MAX_SAMPLES)
    let before = this.#counts()
    let at = recorder.elapsed
    while (!signal.aborted) {
      void this.#ask()
      await pause(everyMs, signal)
      const now = recorder.elapsed
      const after = this.#counts()
      const perSecond = (difference: number): number => Math.round((difference * 1000) / Math.max(1, now - at))
      recorder.add(recorder.samples, {
        at: now,
        sent: perSecond(after.sent - before.sent),
        acknowledged: perSecond(after.acknowledged - before.acknowledged),
        applied: perSecond(after.applied - before.applied),
        lag: after.lag,
        ...this.#parts.readers.sample(),
      })
      this.#look(now)
      before = after
      at = now
    }
  }

  #look(now: number): void {
    const { traffic, sending, recorder } = this.#parts
    const { publishing, sent, absences } = traffic
    sending.look({ now, publishing, sent, absences }, recorder.marks)
  }

  #counts(): { sent: number; acknowledged: number; applied: number; lag: number } {
    const { observer, traffic, engine } = this.#parts
    let applied = 0
    let lag = 0
    for (let partition = 0; partition < engine.stage.partitions; partition++) {
      const progress = observer.progress(partition)
      applied += progress.offset
      const end = this.#ends?.[partition]
      lag += end === undefined ? (progress.lag ?? 0) : Math.max(0, end - progress.offset)
    }
    return { sent: traffic.ledger.published, acknowledged: traffic.ledger.count, applied, lag }
  }

  /** Kafka may be away: then nothing is known, and the next look is as good. */
  async #ask(): Promise<void> {
    if (this.#asking) return
    this.#asking = true
    try {
      this.#ends = await this.#parts.engine.ends()
      ;(await this.#parts.engine.committed()).forEach((committed, partition) => {
        if (committed !== undefined) this.#keep(partition, committed)
      })
    } catch {
      // As the docstring says.
    } finally {
      this.#asking = false
    }
  }

  #keep(partition: number, committed: Committed): void {
    const list = this.committed[partition]
    if (list === undefined || list.at(-1)?.input === committed.input || Number.isNaN(committed.changelogEnd)) return
    list.push(committed)
    if (list.length > MAX_COMMITTED) list.splice(0, list.length, ...list.filter((_, i) => i % 2 === 1))
  }
}
