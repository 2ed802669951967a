import { pause } from '../../../processor/runtime/pause.ts'
import type { Readers } from '../load/readers.ts'
import type { SendingWatch, Traffic } from '../load/traffic.ts'
import type { Observer } from '../stage/observer.ts'
import type { Committed, Stage } from '../stage/stage.ts'
import type { Recorder } from './journal.ts'

/** Samples of one run, at most; a longer run is sampled less often. */
const MAX_SAMPLES = 7_200
const MIN_EVERY_MS = 250
/** A lag counts for this many milliseconds, and at least until the next sample. */
const LAG_COUNTS_MS = 1_000
/** Most committed offsets per partition; then every other one is dropped. */
const MAX_COMMITTED = 10_000

export interface SamplerParts {
  readonly stage: Pick<Stage, 'view' | 'partitions'>
  readonly observer: Observer
  readonly recorder: Recorder
  readonly traffic: Traffic
  readonly readers: Readers
  readonly sending: SendingWatch
  readonly seconds: number
}

/** Telemetry records not yet applied, over all partitions. */
interface Lag {
  /** When it was asked for, ms since the drill began. */
  readonly at: number
  /** Undefined: not all partitions answered. */
  readonly records: number | undefined
}

/** Records rates, lag, reads and committed offsets several times a second. */
export class Sampler {
  readonly #parts: SamplerParts
  /** Distinct committed offsets as seen, by partition, in the order of time. */
  readonly committed: Committed[][]
  #lag: Lag | undefined
  #asking = false

  constructor(parts: SamplerParts) {
    this.#parts = parts
    this.committed = Array.from({ length: parts.stage.partitions }, () => [])
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
        lag: this.#lagSince(Math.min(at, now - LAG_COUNTS_MS)),
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

  #counts(): { sent: number; acknowledged: number; applied: number } {
    const { published, count } = this.#parts.traffic.ledger
    const applied = this.#progress().reduce((all, { offset }) => all + offset, 0)
    return { sent: published, acknowledged: count, applied }
  }

  #progress(): ReturnType<Observer['progress']>[] {
    const { observer, stage } = this.#parts
    return Array.from({ length: stage.partitions }, (_, partition) => observer.progress(partition))
  }

  #lagSince(from: number): number | undefined {
    return this.#lag === undefined || this.#lag.at < from ? undefined : this.#lag.records
  }

  /** Kafka may be away: then the lag is unknown until the next question. */
  async #ask(): Promise<void> {
    if (this.#asking) return
    this.#asking = true
    const { stage, recorder } = this.#parts
    const at = recorder.elapsed
    try {
      // Asked before the ends: the log grows between two questions, and older ends would hide the lag.
      const progress = this.#progress()
      const committed = await stage.view.committed()
      committed.forEach((of, partition) => {
        if (of !== undefined) this.#keep(partition, of)
      })
      const ends = await stage.view.ends()
      const behind = progress.map(({ offset, lag }, partition) => {
        if (ends === undefined) return lag
        return beyond(Math.max(offset, committed[partition]?.input ?? 0), ends[partition])
      })
      this.#lag = { at, records: sum(behind) }
    } catch {
      // Unknown.
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

function beyond(applied: number, end: number | undefined): number | undefined {
  return end === undefined ? undefined : Math.max(0, end - applied)
}

/** Undefined when one of them is. */
function sum(values: readonly (number | undefined)[]): number | undefined {
  return values.reduce((all, value) => (all === undefined || value === undefined ? undefined : all + value), 0)
}
