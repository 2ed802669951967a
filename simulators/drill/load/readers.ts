import { Agent, request } from 'node:http'
import { createHistogram, type RecordableHistogram } from 'node:perf_hooks'
import { partitionOf } from '../../../processor/contract/partition.ts'
import type { Freshness } from '../../../processor/contract/query.ts'
import { pause } from '../../../processor/runtime/pause.ts'
import type { Ledger } from '../../load/ledger.ts'
import type { Random } from '../../random.ts'
import { backward } from '../checks/changelog-check.ts'
import { answerIn, type DeviceAnswer } from '../checks/copies.ts'
import type { Mark, Recorder } from '../report/journal.ts'
import type { ApiAddress } from '../stage/stage.ts'

/** Disturbances that take a process away. */
const AWAY: ReadonlySet<string> = new Set(['kill', 'stop', 'freeze', 'cut'])
/** A disturbance is felt for this long after its end, ms: the API finds the new owners, and what waited is applied. */
export const AFTERMATH_MS = 10_000
const LOOK_EVERY_MS = 100

export interface StabilityParts {
  readonly recorder: Pick<Recorder, 'elapsed' | 'marks'>
  readonly processors: readonly string[]
  /** No other processor stands in for one that is away. */
  readonly alone: boolean
  /** Why a partition lacks its owner or a standby; undefined: none does. */
  readonly unsteady: () => string | undefined
}

/** For how long nothing has been disturbed, and every partition has had its owner and standbys. */
export class Stability {
  readonly #parts: StabilityParts
  /** When the cluster was last seen unsteady, ms since the drill began. */
  #unsteadyAt = 0

  constructor(parts: StabilityParts) {
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

  /** Milliseconds. */
  get lasted(): number {
    return this.#since(this.#parts.recorder.marks)
  }

  /** Whether a processor is away with none to stand in, or just was. */
  get orphaned(): boolean {
    const { recorder, processors, alone } = this.#parts
    if (!alone) return false
    const marks = recorder.marks.filter(({ target }) => processors.includes(target))
    return marks.some(({ verb }) => AWAY.has(verb)) && this.#since(marks) < AFTERMATH_MS
  }

  /** Milliseconds since the last of `marks` was over and the cluster was unsteady. */
  #since(marks: readonly Mark[]): number {
    const { elapsed } = this.#parts.recorder
    const disturbedAt = marks.reduce((last, { doneAt = elapsed }) => Math.max(last, doneAt), 0)
    return elapsed - Math.max(disturbedAt, this.#unsteadyAt)
  }
}

export interface ReadersOptions {
  readonly api: ApiAddress
  readonly ids: readonly string[]
  readonly ledger: Ledger
  /** Requests a second, over all readers. */
  readonly rate: number
  readonly partitions: number
  readonly random: Random
  readonly stability: Pick<Stability, 'lasted' | 'orphaned'>
}

/** The findings of the readers over the whole run. */
export interface ReadersReport {
  readonly reads: number
  readonly failures: number
  /** Failures while a processor was away with none to stand in. */
  readonly excused: number
  /** The first of the other failures, in words. */
  readonly failed: readonly string[]
  /** Answers for a device without a status of it; the first of them in words. Must stay empty. */
  readonly wrongCount: number
  readonly wrong: readonly string[]
  readonly latencyMs: { readonly p50: number; readonly p99: number; readonly max: number }
  /** Answers that lacked a message which was acknowledged before the request, and for how long it had been. */
  readonly stale: { readonly answers: number; readonly p99Ms: number; readonly maxMs: number }
  /** Longest time without an answer from one partition, once one was due; idle times between two requests count too. */
  readonly longestGapMs: number
  readonly standbyAnswers: number
  /** Answers of a standby that were older than an earlier answer, as a fallback may give. */
  readonly olderFromStandby: number
  /** Other answers in which something had gone back. Must stay empty. */
  readonly wentBack: readonly string[]
  readonly wentBackCount: number
}

/** Requests under way at once: each reader has one. */
const READERS = 16
const TIMEOUT_MS = 10_000
/** How many findings of one kind are kept in words. */
const MAX_TOLD = 20
const MAX_LATENCY_US = 60_000_000
/** One request in so many asks for a page of devices, or for the partitions. */
const LIST_EVERY = 20
const PARTITIONS_EVERY = 50

/** The newest state that the answers for one device have shown. */
interface Seen {
  rev: number
  session: number
  ats: Record<string, string>
  freshness: Freshness
}

/** Readers poll devices, pages and partitions at a rate, as dashboards do, and check that nothing goes back. */
export class Readers {
  readonly #options: ReadersOptions
  readonly #agent = new Agent({ keepAlive: true, maxSockets: READERS })
  readonly #latency: RecordableHistogram = createHistogram({ lowest: 1, highest: MAX_LATENCY_US, figures: 3 })
  readonly #staleness: RecordableHistogram = createHistogram({ lowest: 1, highest: MAX_LATENCY_US, figures: 3 })
  readonly #seen = new Map<string, Seen>()
  /** Per partition, `performance.now()` of its last answer; 0: no answer was due yet. */
  readonly #silentSince: Float64Array
  readonly #failed: string[] = []
  readonly #wrong: string[] = []
  readonly #wentBack: string[] = []
  #longestGapMs = 0
  #stale = 0
  #standby = 0
  #older = 0
  #back = 0
  #excused = 0
  #wrongCount = 0
  #turn = 0
  /** Counts since the last call of `sample`. */
  #recent = { staleMs: 0, reads: 0, failures: 0 }
  reads = 0
  failures = 0

  constructor(options: ReadersOptions) {
    this.#options = options
    this.#silentSince = new Float64Array(options.partitions)
  }

  /** Reads until `signal` aborts. */
  async run(signal: AbortSignal): Promise<void> {
    const began = performance.now()
    await Promise.all(Array.from({ length: READERS }, (_, reader) => this.#read(reader, began, signal)))
    this.#silentSince.forEach((_, partition) => this.#silence(partition))
    this.#agent.destroy()
  }

  /** Counts since the last call. */
  sample(): { staleMs: number; reads: number; failures: number } {
    const recent = this.#recent
    this.#recent = { staleMs: 0, reads: 0, failures: 0 }
    return recent
  }

  get report(): ReadersReport {
    const { count } = this.#latency
    const latency = (percentile: number): number => (count === 0 ? 0 : ms(this.#latency.percentile(percentile)))
    return {
      reads: this.reads,
      failures: this.failures,
      excused: this.#excused,
      failed: this.#failed,
      wrongCount: this.#wrongCount,
      wrong: this.#wrong,
      latencyMs: { p50: latency(50), p99: latency(99), max: count === 0 ? 0 : ms(this.#latency.max) },
      stale: {
        answers: this.#stale,
        p99Ms: this.#stale === 0 ? 0 : ms(this.#staleness.percentile(99)),
        maxMs: this.#stale === 0 ? 0 : ms(this.#staleness.max),
      },
      longestGapMs: Math.round(this.#longestGapMs),
      standbyAnswers: this.#standby,
      olderFromStandby: this.#older,
      wentBack: this.#wentBack,
      wentBackCount: this.#back,
    }
  }

  /** A device belongs to one reader, which has one request under way: so its answers have an order. */
  async #read(reader: number, began: number, signal: AbortSignal): Promise<void> {
    const { ids, rate, random } = this.#options
    const everyMs = (1000 * READERS) / rate
    const own = Math.floor((ids.length - 1 - reader) / READERS) + 1
    let due = began + (everyMs * reader) / READERS
    while (!signal.aborted) {
      const wait = due - performance.now()
      if (wait > 0) await pause(wait, signal)
      if (signal.aborted) return
      // A reader that was held up does not catch up, as a person at a dashboard does not.
      due = Math.max(due + everyMs, performance.now())
      const turn = this.#turn++
      if (turn % PARTITIONS_EVERY === 1) await this.#get('/v1/partitions', signal)
      else if (turn % LIST_EVERY === 2 || own <= 0) await this.#get('/v1/devices?limit=50', signal)
      else await this.#device(reader + READERS * Math.floor(random() * own), signal)
    }
  }

  async #device(device: number, signal: AbortSignal): Promise<void> {
    const { ids, ledger, partitions } = this.#options
    const id = ids[device] as string
    const path = `/v1/devices/${id}`
    const acknowledged = ledger.last[device] as number
    const acknowledgedAt = ledger.lastAckAt[device] as number
    const askedAt = Date.now()
    const partition = partitionOf(id, partitions)
    const unknown = this.#mayBeUnknown(device, askedAt)
    if (!unknown) this.#silentSince[partition] ||= performance.now()
    const text = await this.#get(path, signal, unknown)
    if (text === undefined) return
    let answer: DeviceAnswer
    try {
      answer = answerIn(text, id)
    } catch (error) {
      this.#wrongCount++
      if (this.#wrong.length < MAX_TOLD) this.#wrong.push(`${path}: ${(error as Error).message}`)
      return
    }
    this.#silence(partition)
    this.#silentSince[partition] = performance.now()
    if (answer.freshness.servedBy === 'standby') this.#standby++
    this.#compare(id, answer)
    const shown = answer.sequence?.seen.at(-1)?.[1] ?? 0
    if (shown >= acknowledged) return
    // When one message lacks, its time is known. When more do, the answer is no older than the message that it shows.
    const newest = Math.max(...Object.values(answer.reported).map(({ at }) => Date.parse(at)))
    const staleMs = Math.max(1, askedAt - (shown === acknowledged - 1 ? acknowledgedAt : newest))
    this.#stale++
    this.#recent.staleMs = Math.max(this.#recent.staleMs, staleMs)
    this.#staleness.record(Math.min(Math.round(staleMs * 1000), MAX_LATENCY_US))
  }

  /** Whether the first message of a device may still wait to be applied. */
  #mayBeUnknown(device: number, now: number): boolean {
    const { ids, ledger, stability } = this.#options
    if (this.#seen.has(ids[device] as string)) return false
    const firstAt = ledger.firstAckAt[device] as number
    return firstAt === 0 || Math.min(now - firstAt, stability.lasted) < AFTERMATH_MS
  }

  /** Ends a silence of the partition. */
  #silence(partition: number): void {
    const since = this.#silentSince[partition] as number
    if (since > 0) this.#longestGapMs = Math.max(this.#longestGapMs, performance.now() - since)
  }

  #compare(id: string, answer: DeviceAnswer): void {
    const { rev, connectivity, reported, freshness } = answer
    const before = this.#seen.get(id)
    const ats: Record<string, string> = {}
    for (const name in reported) ats[name] = reported[name]?.at as string
    const what = before === undefined ? undefined : backward(before, rev, connectivity.session, ats)
    if (before !== undefined && what !== undefined) {
      if (freshness.servedBy === 'standby' && freshness.offset < before.freshness.offset) {
        this.#older++
        return
      }
      this.#back++
      const how = `${said(freshness)} after ${said(before.freshness)}`
      if (this.#wentBack.length < MAX_TOLD) this.#wentBack.push(`${id}: ${what} (${how})`)
    }
    this.#seen.set(id, { rev, session: connectivity.session, ats, freshness })
  }

  /** The body; undefined when the request failed. `unknown`: the device may not be known yet. */
  async #get(path: string, signal: AbortSignal, unknown = false): Promise<string | undefined> {
    const { stability } = this.#options
    const began = performance.now()
    const { orphaned } = stability
    const outcome = await fetchText(this.#agent, this.#options.api, path)
    // A request that the end of the drill cut off is not counted.
    if (signal.aborted) return undefined
    this.#latency.record(Math.min(Math.max(1, Math.round((performance.now() - began) * 1000)), MAX_LATENCY_US))
    this.reads++
    this.#recent.reads++
    if (outcome.status === 200) return outcome.text
    if (outcome.status === 404 && unknown) return undefined
    this.failures++
    this.#recent.failures++
    if (orphaned || stability.orphaned) {
      this.#excused++
      return undefined
    }
    const told = `${new Date().toISOString()} ${path}: ${outcome.status ?? ''} ${outcome.text.slice(0, 300)}`
    if (this.#failed.length < MAX_TOLD) this.#failed.push(told)
    return undefined
  }
}

function said({ servedBy, partition, offset }: Freshness): string {
  return `${servedBy} of partition ${partition} at ${offset}`
}

/** Milliseconds with one decimal. */
function ms(us: number): number {
  return Math.round(us / 100) / 10
}

function fetchText(
  agent: Agent,
  { url, headers }: ApiAddress,
  path: string,
): Promise<{ status: number | undefined; text: string }> {
  return new Promise((resolve) => {
    const failed = (error: Error): void => resolve({ status: undefined, text: error.message })
    const outgoing = request(url + path, { agent, headers, timeout: TIMEOUT_MS }, (response) => {
      const chunks: Buffer[] = []
      response.on('data', (chunk: Buffer) => chunks.push(chunk))
      response.on('error', failed)
      response.on('end', () => resolve({ status: response.statusCode, text: Buffer.concat(chunks).toString() }))
    })
    outgoing.on('timeout', () => outgoing.destroy(new Error(`no answer within ${TIMEOUT_MS} ms`)))
    outgoing.on('error', failed)
    outgoing.end()
  })
}
