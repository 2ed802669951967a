import { randomBytes } from 'node:crypto'
import { Ledger } from '../load/ledger.ts'
import { seededRandom } from '../random.ts'
import { type Invariant, judge } from './checks/invariants.ts'
import { Director, oneLine, Undone, Unsettled } from './director.ts'
import { DRILLS, type Drill } from './drills.ts'
import { Poison } from './load/poison.ts'
import { Readers, type ReadersReport, Stability } from './load/readers.ts'
import { SendingWatch, Traffic } from './load/traffic.ts'
import { Visitors, visitorsOf } from './load/visitors.ts'
import type { DrillOptions } from './options.ts'
import { type Failure, type Journal, type Mark, Recorder, type Times, timesOf } from './report/journal.ts'
import { Sampler } from './report/sampler.ts'
import { gather } from './stage/evidence.ts'
import { Observer } from './stage/observer.ts'
import type { Committed, Stage } from './stage/stage.ts'

export interface Outcome {
  readonly options: DrillOptions
  readonly journal: Journal
  readonly invariants: readonly Invariant[]
  readonly times: Times
  readonly reads: ReadersReport
  readonly load: {
    readonly sent: number
    readonly acknowledged: number
    readonly sentAgain: number
    readonly disconnects: number
    readonly ackMs: { readonly p50: number; readonly p99: number; readonly max: number }
  }
}

export interface RunHooks {
  readonly onMark: (mark: Mark) => void
  /** The disturbances end here; the checks follow all the same. */
  readonly onFailure: (failure: Failure) => void
  /** Called every second while the drill runs. */
  readonly onProgress: (recorder: Recorder) => void
  /** Called with what is done next, once the load has ended. */
  readonly onStage: (what: string) => void
}

/**
 * Runs one drill on a stage that is up. A disturbance that fails ends the disturbances, and is part of the outcome.
 * Rejects when `signal` aborts, and when the load cannot begin.
 */
export async function runDrill(
  options: DrillOptions,
  stage: Stage,
  hooks: RunHooks,
  signal: AbortSignal,
): Promise<Outcome> {
  const drill = DRILLS[options.name]
  const { devices, rate, seed, seconds } = options
  const { mqtt, partitions } = stage
  const prefix = `drill-${randomBytes(3).toString('hex')}`
  const ledger = new Ledger(devices + visitorsOf(devices))
  await using traffic = await Traffic.open(
    { ...mqtt, prefix, devices, ledger, rate, seed, hot: drill.hot, partitions },
    signal,
  )
  const oneBroker = options.engine !== 'attached'
  await using visitors = new Visitors({ mqtt, prefix, devices, ledger, seed, oneBroker })
  const ids = [...traffic.ids, ...visitors.ids]
  await using poison = drill.poison === undefined ? undefined : await Poison.open(mqtt, traffic.ids)

  /** Aborts when a part of the drill itself fails. */
  const fault = new AbortController()
  const over = AbortSignal.any([signal, fault.signal])
  const recorder = new Recorder(Date.now())
  const observer = new Observer(stage.view, partitions, recorder)
  const { onMark } = hooks
  const director = new Director({ onMark, options, stage, observer, recorder, traffic, ids, signal: over })
  // On the embedded log all processors are one process.
  const alone = options.engine === 'embedded' || stage.standbys === 0
  const unsteady = (): string | undefined => director.unsteady
  const stability = new Stability({ recorder, processors: stage.processors, alone, unsteady })
  const random = seededRandom(seed, 2)
  const readers = new Readers({ api: stage.api, ids, ledger, rate: options.reads, partitions, random, stability })
  const sending = new SendingWatch()
  const sampler = new Sampler({ stage, observer, recorder, traffic, readers, sending, seconds })

  const run = { options, stage, hooks, prefix, ids, traffic, visitors, poison, recorder, observer, director, readers }

  const ending = new AbortController()
  const endingExtras = new AbortController()
  const watching = [observer, stability, sampler, readers].map((each) => each.run(ending.signal))
  const poisoning = poison?.run(drill.poison as number, endingExtras.signal)
  const visiting = visitors.run(endingExtras.signal)
  for (const each of [...watching, poisoning, visiting]) each?.catch((error: unknown) => fault.abort(error))
  const progress = setInterval(() => hooks.onProgress(recorder), 1_000)
  let course: Course
  try {
    course = await play(run, over, async () => {
      endingExtras.abort()
      await Promise.all([poisoning, visiting])
      const patienceMs = options.patience * 1000
      await Promise.all([poison?.drain(patienceMs, over), visitors.leave(stage.api, patienceMs, over)])
    })
  } finally {
    clearInterval(progress)
    endingExtras.abort()
    ending.abort()
    await Promise.all([...watching, visiting])
  }
  // Awaited here: the devices must stay connected until the answers have been taken.
  return await conclude(run, course, sending, sampler.committed, signal)
}

/** The parts of a run. */
interface Run {
  readonly options: DrillOptions
  readonly stage: Stage
  readonly hooks: RunHooks
  /** Begins the id of every device. */
  readonly prefix: string
  readonly ids: readonly string[]
  readonly traffic: Traffic
  readonly visitors: Visitors
  readonly poison: Poison | undefined
  readonly recorder: Recorder
  readonly observer: Observer
  readonly director: Director
  readonly readers: Readers
}

/** How the script went. */
interface Course {
  readonly failure: Failure | undefined
  /** Why the cluster did not come to rest. */
  readonly unsettled: string | undefined
  readonly loadEndedAt: number
  readonly quietAt: number | undefined
}

/** Plays load and script, then waits until the cluster is at rest. `endExtras` ends poison and visitors. */
async function play(run: Run, signal: AbortSignal, endExtras: () => Promise<void>): Promise<Course> {
  const { options, traffic, director, recorder, hooks } = run
  const drill = DRILLS[options.name]
  let unsettled: string | undefined
  let failure: Failure | undefined
  let loadEndedAt = 0
  let quietAt: number | undefined
  try {
    await director.steady()
    traffic.start()
    director.begin()
    try {
      // An attached cluster's processes are not disturbed: what is left of such a drill is its load.
      await (options.engine === 'attached' && disturbsProcesses(drill) ? director.run(1) : drill.script(director))
    } catch (error) {
      signal.throwIfAborted()
      if (error instanceof Unsettled) unsettled = error.message
      else {
        failure = failureOf(error, recorder.elapsed)
        hooks.onFailure(failure)
      }
    }
    loadEndedAt = recorder.elapsed
    hooks.onStage('waiting for quiet')
    await endExtras()
    await comeToRest(traffic, director, options.patience * 1000, signal)
    quietAt = recorder.elapsed
  } catch (error) {
    if (!(error instanceof Unsettled)) throw error
    unsettled ??= error.message
  }
  return { failure, unsettled, loadEndedAt, quietAt }
}

/** Gathers the evidence and judges it. */
async function conclude(
  run: Run,
  { failure, unsettled, loadEndedAt, quietAt }: Course,
  sending: SendingWatch,
  committed: readonly (readonly Committed[])[],
  signal: AbortSignal,
): Promise<Outcome> {
  const { options, stage, hooks, prefix, ids, traffic, visitors, poison, recorder, observer, director, readers } = run
  const { partitions } = stage
  const { ledger, connections } = traffic
  const { published: sent, count: acknowledged, again: sentAgain, disconnects, ackMs } = ledger
  hooks.onStage('reading the log, the changelog and the stores')
  const copiesDue = 1 + stage.standbysDue(observer.assigned.members.length)
  const wholeWithinMs = unsettled === undefined ? options.patience * 1000 : 0
  const gathered = await gather(stage, { prefix, ids, samples: committed, copiesDue, wholeWithinMs })
  signal.throwIfAborted()
  const { marks, holds, advances, groupStates, samples, startedAt } = recorder
  const journal = { startedAt, partitions, marks, holds, advances, groupStates, samples, failure, loadEndedAt, quietAt }
  const reads = readers.report
  const invariants = judge({
    ...gathered,
    ids,
    partitions,
    copiesDue,
    ledger,
    failure,
    unsettled,
    connections,
    sending: sending.report,
    rate: options.rate,
    reads,
    failedReads: options.failedReads,
    falls: stage.falls,
    zombies: director.zombies,
    poison,
    visitors: visitors.report,
  })
  const load = { sent, acknowledged, sentAgain, disconnects, ackMs }
  return { options, journal, invariants, times: timesOf(journal), reads, load }
}

/** Resolves when all messages are acknowledged and applied everywhere. Rejects with Unsettled when that takes too long. */
async function comeToRest(
  traffic: Traffic,
  director: Director,
  patienceMs: number,
  signal: AbortSignal,
): Promise<void> {
  // A device that has nothing under way would not show that it is still disconnected.
  const connected = traffic.connected(patienceMs, signal)
  try {
    try {
      await traffic.stop(patienceMs)
    } catch (error) {
      throw new Unsettled(oneLine(error), { cause: error })
    }
    const ends = await director.ends()
    if (ends === undefined) await director.applied()
    await director.quiet(ends)
  } finally {
    await connected
  }
}

function disturbsProcesses(drill: Drill): boolean {
  return drill.hot === undefined && drill.poison === undefined && drill !== DRILLS.storm
}

function failureOf(error: unknown, at: number): Failure {
  if (error instanceof Undone) return { at, what: error.message, why: oneLine(error.cause) }
  return { at, what: 'the script failed', why: oneLine(error) }
}
