import { randomBytes } from 'node:crypto'
import { Ledger } from '../load/ledger.ts'
import { seededRandom } from '../random.ts'
import { type Invariant, judge } from './checks/invariants.ts'
import { Director, oneLine, Undone, Unrest } from './director.ts'
import { DRILLS, type Drill, type DrillOptions } from './drills.ts'
import { Poison } from './load/poison.ts'
import { Calm, Readers, type ReadersReport } from './load/readers.ts'
import { Sending, Traffic } from './load/traffic.ts'
import { Visitors, visitorsOf } from './load/visitors.ts'
import { type Failure, type Journal, type Mark, Recorder } from './report/journal.ts'
import { Sampler } from './report/sampler.ts'
import { type Times, timesOf } from './report/times.ts'
import type { Engine } from './stage/engine.ts'
import { Observer } from './stage/observer.ts'
import { standbysDue } from './stage/stage.ts'

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
  /** Nothing is disturbed any more; what can be checked is checked all the same. */
  readonly onFailure: (failure: Failure) => void
  /** Now and then, while it runs. */
  readonly onProgress: (recorder: Recorder) => void
  /** What is done next, once the load has ended. */
  readonly onStage: (what: string) => void
}

/**
 * Runs one drill on an engine that is up. A disturbance that cannot be made ends the disturbances, and is part of the outcome.
 * Rejects when `signal` aborts, and when the load cannot begin.
 */
export async function runDrill(
  options: DrillOptions,
  engine: Engine,
  hooks: RunHooks,
  signal: AbortSignal,
): Promise<Outcome> {
  const { stage } = engine
  /** Of the drill itself: what looks on or sends beside the load. */
  const fault = new AbortController()
  const over = AbortSignal.any([signal, fault.signal])
  const drill: Drill = DRILLS[options.name]
  const prefix = `drill-${randomBytes(3).toString('hex')}`
  const { devices, rate, seed } = options
  const ledger = new Ledger(devices + visitorsOf(devices))
  const load = { ...stage.mqtt, prefix, devices, ledger, rate, seed, hot: drill.hot, partitions: stage.partitions }
  await using traffic = await Traffic.open(load, signal)
  const oneBroker = options.engine !== 'attached'
  await using visitors = new Visitors({ mqtt: stage.mqtt, prefix, devices, ledger, seed, oneBroker })
  const ids = [...traffic.ids, ...visitors.ids]
  await using poison = drill.poison === undefined ? undefined : await Poison.open(stage.mqtt, traffic.ids)
  const recorder = new Recorder(Date.now())
  const observer = new Observer(engine.sight, stage.partitions, recorder)
  const director = new Director({ ...hooks, options, stage, observer, recorder, traffic, ids, signal: over })
  const { processors, partitions } = stage
  // On the embedded engine all processors are one process.
  const alone = options.engine === 'embedded' || stage.standbys === 0
  const calm = new Calm({ recorder, processors, alone, unsteady: () => director.unsteady })
  const random = seededRandom(seed, 2)
  const readers = new Readers({ api: stage.api, ids, ledger, rate: options.reads, partitions, random, calm })
  const sending = new Sending()
  const sampler = new Sampler({ engine, observer, recorder, traffic, readers, sending, seconds: options.seconds })

  const ending = new AbortController()
  const beside = new AbortController()
  const loops = [observer, calm, sampler, readers].map((each) => each.run(ending.signal))
  const poisoned = poison?.run(drill.poison as number, beside.signal)
  const visiting = visitors.run(beside.signal)
  for (const each of [...loops, poisoned, visiting]) each?.catch((error: unknown) => fault.abort(error))
  const progress = setInterval(() => hooks.onProgress(recorder), 1_000)
  let course: Course
  try {
    course = await run({ drill, options, engine, traffic, director, recorder, hooks, signal: over }, async () => {
      beside.abort()
      await Promise.all([poisoned, visiting])
      const patienceMs = options.patience * 1000
      await Promise.all([poison?.drain(patienceMs, over), visitors.leave(stage.api, patienceMs, over)])
    })
  } finally {
    clearInterval(progress)
    beside.abort()
    ending.abort()
    await Promise.all([...loops, visiting])
  }
  const { failure, unquiet, loadEndedAt, quietAt } = course
  const sent = loadOf(traffic)
  const { connections } = traffic
  hooks.onStage('reading the log, the changelog and the stores')
  const copiesDue = 1 + standbysDue(stage, observer.assigned.members.length)
  const wholeWithinMs = unquiet === undefined ? options.patience * 1000 : 0
  const gathered = await engine.gather({ prefix, ids, samples: sampler.committed, copiesDue, wholeWithinMs })
  signal.throwIfAborted()
  const { marks, holds, advances, groupStates, samples, startedAt } = recorder
  const journal = { startedAt, partitions, marks, holds, advances, groupStates, samples, failure, loadEndedAt, quietAt }
  const invariants = judge({
    ...gathered,
    ids,
    partitions,
    copiesDue,
    ledger,
    failure,
    unquiet,
    connections,
    sending: sending.report,
    rate,
    reads: readers.report,
    failedReads: options.failedReads,
    falls: stage.falls,
    zombies: director.zombies,
    poison,
    visitors: visitors.report,
  })
  return { options, journal, invariants, times: timesOf(journal), reads: readers.report, load: sent }
}

/** How it went. */
interface Course {
  readonly failure: Failure | undefined
  readonly unquiet: string | undefined
  readonly loadEndedAt: number
  readonly quietAt: number | undefined
}

interface RunParts {
  readonly drill: Drill
  readonly options: DrillOptions
  readonly engine: Engine
  readonly traffic: Traffic
  readonly director: Director
  readonly recorder: Recorder
  readonly hooks: RunHooks
  readonly signal: AbortSignal
}

/** Load and script, and then until all is quiet. `stopOthers` ends what is sent beside the load. */
async function run(parts: RunParts, stopOthers: () => Promise<void>): Promise<Course> {
  const { drill, options, engine, traffic, director, recorder, hooks, signal } = parts
  let unquiet: string | undefined
  let failure: Failure | undefined
  let loadEndedAt = 0
  let quietAt: number | undefined
  try {
    await director.steady()
    traffic.start()
    director.begin()
    try {
      await (options.engine === 'attached' && disturbsProcesses(drill) ? director.run(1) : drill.script(director))
    } catch (error) {
      signal.throwIfAborted()
      if (error instanceof Unrest) unquiet = error.message
      else {
        failure = failed(error, recorder.elapsed)
        hooks.onFailure(failure)
      }
    }
    loadEndedAt = recorder.elapsed
    hooks.onStage('waiting for quiet')
    await stopOthers()
    await rest(traffic, director, engine, { patienceMs: options.patience * 1000, signal })
    quietAt = recorder.elapsed
  } catch (error) {
    if (!(error instanceof Unrest)) throw error
    unquiet ??= error.message
  }
  return { failure, unquiet, loadEndedAt, quietAt }
}

/** Until all that was sent is acknowledged, and applied everywhere. Rejects with Unrest when it does not come to that. */
async function rest(
  traffic: Traffic,
  director: Director,
  engine: Engine,
  { patienceMs, signal }: { readonly patienceMs: number; readonly signal: AbortSignal },
): Promise<void> {
  // Devices with nothing under way would not be missed otherwise.
  const whole = traffic.whole(patienceMs, signal)
  try {
    await stopped(traffic, patienceMs)
    const ends = await director.ends(engine)
    if (ends === undefined) await director.applied(engine.stage.api)
    await director.quiet(ends)
  } finally {
    await whole
  }
}

async function stopped(traffic: Traffic, patienceMs: number): Promise<void> {
  try {
    await traffic.stop(patienceMs)
  } catch (error) {
    throw new Unrest(oneLine(error), { cause: error })
  }
}

function disturbsProcesses(drill: Drill): boolean {
  return drill.hot === undefined && drill.poison === undefined && drill !== DRILLS.storm
}

function failed(error: unknown, at: number): Failure {
  if (error instanceof Undone) return { at, what: error.message, why: oneLine(error.cause) }
  return { at, what: 'the script failed', why: oneLine(error) }
}

function loadOf({ ledger }: Traffic): Outcome['load'] {
  const { published, count, again, disconnects, histogram } = ledger
  const ms = (us: number): number => (count === 0 ? 0 : Math.round(us / 10) / 100)
  return {
    sent: published,
    acknowledged: count,
    sentAgain: again,
    disconnects,
    ackMs: { p50: ms(histogram.percentile(50)), p99: ms(histogram.percentile(99)), max: ms(histogram.max) },
  }
}
