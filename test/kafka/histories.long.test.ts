import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { Cluster } from '../../simulators/cluster.ts'
import type { Kafka } from '../../simulators/kafka/kafka.ts'
import { check } from './history/checker.ts'
import { Experiment } from './history/experiment.ts'
import { judgeConvergence } from './history/fleet-rules.ts'
import type { Follower } from './history/follower.ts'
import type { Write } from './history/history.ts'
import type { States } from './history/states.ts'
import { RULES, type Rule, Verdict, type Violation } from './history/verdict.ts'
import { verifyAnswers, verifyStores } from './invariants.ts'
import { kafkaMissing, startKafka } from './kafka.ts'

/** Decides what clients ask and what is done to processes; TIDEMARK_SEED for another. What happens is up to the machine, too. */
const SEED = Number(process.env.TIDEMARK_SEED ?? 1)
/** So many times as much must happen; TIDEMARK_HISTORIES for a longer search. */
const LENGTH = Number(process.env.TIDEMARK_HISTORIES ?? 1)
const PARTITIONS = 4
const FAULTY = fileURLToPath(new URL('../faults/faulty-api.ts', import.meta.url))
/** Then what is missing is told, after what was wrong: a product that refuses no write will never have refused enough. */
const PATIENCE_MS = LENGTH * 240_000
const DEADLINE = { timeout: 30_000, interval: 20 }

/** How often each must have happened before it is enough, in a history of the usual length. */
const WANTED: Readonly<Record<string, number>> = {
  'processor kill': 2,
  'processor stop': 2,
  'processor freeze': 2,
  'api kill': 1,
  'api stop': 1,
  'api freeze': 1,
  'ingest kill': 1,
  'ingest stop': 1,
  'ingest freeze': 1,
  'answers of owners': 500,
  'answers of standbys': 50,
  'reads at a position': 100,
  'writes read through the other api': 50,
  'writes that raced': 50,
  'writes with a condition that held': 50,
  'writes with a condition that did not': 50,
  'writes of unknown devices': 3,
  deletions: 5,
  lists: 50,
  counts: 50,
  streams: 12,
}

/** And where nothing is done to the processes. */
const WANTED_IN_PEACE = Object.fromEntries(
  ['reads at a position', 'writes that raced', 'counts'].map((what) => [what, WANTED[what] ?? 0]),
)

describe.skipIf(kafkaMissing !== undefined)(
  'histories of concurrent clients',
  { timeout: PATIENCE_MS + 120_000 },
  () => {
    let kafka: Kafka

    beforeAll(async () => {
      kafka = await startKafka()
    }, 180_000)

    afterAll(async () => {
      await kafka?.[Symbol.asyncDispose]()
    })

    const openCluster = (env: Readonly<Record<string, string>>, entry?: string) =>
      Cluster.open(kafka.brokers, PARTITIONS, env, entry)

    test(`are consistent while processes are killed, stopped and frozen (TIDEMARK_SEED=${SEED})`, async () => {
      await using cluster = await openCluster({ HTTP_DRAIN_SECONDS: '0' })
      await using experiment = await Experiment.open(cluster, ['a', 'b', 'c'], PARTITIONS, SEED)
      const { history, asker, clients, devices, followers, nemesis } = experiment
      const began = performance.now()
      await experiment.run(() => missing(experiment, WANTED, LENGTH).length === 0, 'disturbed', PATIENCE_MS)
      const seconds = ((performance.now() - began) / 1000).toFixed(1)
      await experiment.quiet()
      await using log = await cluster.log()
      await verifyAnswers(cluster, devices, log, 1)
      const { failures } = asker
      history.holdings.push(...(await clients.finish()))
      expect(asker.failures, 'requests that failed at rest').toBe(failures)
      expect(asker.unexpected).toEqual([])
      const states = await experiment.states(log)
      await vi.waitFor(() => expect(differences(followers, states)).toEqual([]), DEADLINE)
      history.holdings.push(...followers.map(({ holding }) => holding))
      const { violations, judged } = check(history, states)
      const told = { ...happened(experiment), 'requests that failed': asker.failures, judged }
      process.stdout.write(`seed ${SEED}, ${seconds} s: ${JSON.stringify(told)}\n`)
      expect(violations).toEqual([])
      expect(missing(experiment, WANTED, LENGTH)).toEqual([])
      for (const rule of Object.keys(RULES) as Rule[]) expect(judged[rule], rule).toBeGreaterThan(20)
      await verifyStores(cluster, log, Object.fromEntries(nemesis.processors))
    })

    test(`show what an API breaks that forgets conditions, positions, devices and changes (TIDEMARK_SEED=${SEED})`, async () => {
      await using cluster = await openCluster({ STANDBYS: '0' }, FAULTY)
      await using experiment = await Experiment.open(cluster, ['a'], PARTITIONS, SEED)
      const { history, followers } = experiment
      await experiment.run(() => missing(experiment, WANTED_IN_PEACE, 1).length === 0, 'in peace', PATIENCE_MS)
      await experiment.quiet()
      await using log = await cluster.log()
      const states = await experiment.states(log)
      history.holdings.push(...followers.map(({ holding }) => holding))
      const { broken } = check(history, states)
      const due: Rule[] = ['read your writes', 'monotonic reads', 'conditional writes', 'exact counts', 'convergence']
      expect(Object.keys(broken).toSorted()).toEqual(expect.arrayContaining(due))
    })
  },
)

/** What has not happened often enough. */
function missing(experiment: Experiment, wanted: Readonly<Record<string, number>>, times: number): string[] {
  const counts = happened(experiment)
  return Object.entries(wanted).flatMap(([what, count]) => {
    const had = counts[what] ?? 0
    return had < count * times ? [`${what}: ${had} of ${count * times}`] : []
  })
}

function happened({ history, clients, followers, nemesis }: Experiment): Record<string, number> {
  const { reads, writes, lists, counts } = history
  const answersOf = (by: string) => reads.filter(({ answers: [first] }) => first?.freshness.servedBy === by).length
  const applied = writes.filter((write) => outcomeOf(write) === 'applied')
  return {
    ...Object.fromEntries(nemesis.done),
    'answers of owners': answersOf('owner'),
    'answers of standbys': answersOf('standby'),
    'reads at a position': reads.filter(({ atLeast }) => atLeast !== undefined).length,
    'writes read through the other api': clients.ownReads,
    'writes that raced': clients.races,
    'writes with a condition that held': applied.filter(({ ifMatch }) => ifMatch !== undefined).length,
    'writes with a condition that did not': writes.filter((write) => outcomeOf(write) === 'stale').length,
    'writes of unknown devices': writes.filter((write) => outcomeOf(write) === 'unknown-device').length,
    'writes of which nobody knows': writes.filter(({ completion }) => completion.type === 'info').length,
    deletions: applied.filter(({ token }) => token === undefined).length,
    lists: lists.length,
    counts: counts.length,
    streams: followers.reduce((sum, { connections }) => sum + connections, 0),
  }
}

function outcomeOf({ completion }: Write): string | undefined {
  return completion.type === 'ok' ? completion.outcome : undefined
}

/** Of what they hold, and what the log comes to. */
function differences(followers: readonly Follower[], states: States): readonly Violation[] {
  const verdict = new Verdict()
  judgeConvergence({ holdings: followers.map(({ holding }) => holding) }, states, verdict)
  return verdict.violations
}
