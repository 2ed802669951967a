import { randomBytes } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { Cluster } from '../../simulators/cluster.ts'
import { runDrillCommand } from '../../simulators/drill/drill.ts'
import type { Kafka } from '../../simulators/kafka/kafka.ts'
import { Program } from '../../simulators/program.ts'
import { entry, SMALL_DRILL } from '../system/small-drill.ts'
import { kafkaMissing, startKafka } from './kafka.ts'

const SMALL = [...SMALL_DRILL, '--seconds', '4']
/** The dashboard of cluster.test.ts fails on any read that fails; how busy this machine is must not decideOutcome here. */
const READS = ['--failed-reads', '1000000']

describe.skipIf(kafkaMissing !== undefined)('drills on Kafka', { timeout: 240_000 }, () => {
  let kafka: Kafka

  beforeAll(async () => {
    kafka = await startKafka()
  }, 180_000)

  afterAll(() => kafka?.[Symbol.asyncDispose]())

  async function drill(name: string, ...more: string[]) {
    return run([name, ...SMALL, ...READS, ...more], {})
  }

  /** With `on` empty the drill starts a Kafka of its own. */
  async function run(
    argv: readonly string[],
    environment: Readonly<Record<string, string>>,
    on: { kafka?: Kafka } = { kafka },
  ) {
    let said = ''
    const code = await runDrillCommand(argv, {
      stdout: { write: (text: string) => (said += text) },
      stderr: { write: (text: string) => (said += text) },
      environment,
      ...on,
      signal: new AbortController().signal,
    })
    return { code, said }
  }

  test.each(['kill', 'freeze', 'roll', 'scale', 'restore', 'broker'])('%s: every invariant holds', async (name) => {
    const { code, said } = await drill(name)
    expect(code, said).toBe(0)
    expect(said).toMatch(new RegExp(`${name}: all \\d+ invariants held, [1-9]`))
  })

  /** One processor is enough where none is disturbed. */
  const ALONE = ['--processors', '1', '--seconds', '2']

  test.each(['join', 'leave', 'wipe'])('%s: every invariant holds', async (name) => {
    const { code, said } = await drill(name)
    expect(code, said).toBe(0)
    expect(said).toMatch(new RegExp(`${name}: all \\d+ invariants held`))
  })

  test.each(['ingest', 'api', 'storm', 'hot', 'poison'])('%s: every invariant holds', async (name) => {
    const { code, said } = await drill(name, ...ALONE)
    expect(code, said).toBe(0)
    expect(said).toMatch(new RegExp(`${name}: all \\d+ invariants held`))
  })

  test('kill, of the only processor: reads that nobody could answer are no finding', async () => {
    const { code, said } = await drill('kill', ...ALONE, '--failed-reads', '0')
    expect(code, said).toBe(0)
    expect(said).toMatch(/held {4}reads went on +[1-9].*allowed: nobody could stand in/)
  })

  test('cut: every invariant holds, on a Kafka of its own that one processor reaches by another way', async () => {
    const { code, said } = await run(['cut', ...SMALL, ...READS], {}, {})
    expect(code, said).toBe(0)
    expect(said).toMatch(/held {4}the zombie committed nothing/)
  })

  test('watch: looks at a cluster that asks for a token, and says what it lacks: the token, the number of standbys', async () => {
    const auth = { AUTH: 'jwt', AUTH_SECRET: randomBytes(32).toString('hex') }
    await using cluster = await Cluster.open(kafka.brokers, 4, { ...auth, HTTP_DRAIN_SECONDS: '0', STANDBYS: '0' })
    await Promise.all([cluster.processor('a'), cluster.processor('b'), cluster.ingest(), cluster.api()])
    const scope = ['--subject', 'drill', '--scope', 'devices:read ops:read']
    const token = Program.main(['token', ...scope], auth)
    expect(await token.exited, token.stderr).toEqual({ code: 0, signal: null })
    const { CLUSTER_SECRET = '', TOPIC_PREFIX = '', GROUP = '' } = cluster.env
    const environment = { KAFKA_BROKERS: kafka.brokers, TOPIC_PREFIX, GROUP, CLUSTER_SECRET, STANDBYS: '0' }
    const at = ['--api', `http://127.0.0.1:${cluster.httpPort}`, '--mqtt', `127.0.0.1:${cluster.mqttPort}`]
    const argv = ['watch', '--attach', ...at, '--devices', '20', '--rate', '100', '--seconds', '3', ...READS]
    const bearer = { ...environment, AUTH_TOKEN: token.stdout.trimEnd() }
    const bearing = await run(argv, bearer)
    expect(bearing.code, bearing.said).toBe(0)
    expect(bearing.said).toMatch(/watch: all \d+ invariants held/)
    expect(bearing.said).toMatch(/reads went on +0 of [1-9]/)
    const more = await run([...argv, '--patience', '1'], { ...bearer, STANDBYS: '1' })
    expect(more.said).toMatch(/BROKEN {2}it came to rest/)
    expect(more.said).toMatch(/partition 0 has 0 of 1 standbys \(STANDBYS=1: set it as/)
    const bare = await run(argv, environment)
    expect(bare.code).toBe(2)
    expect(bare.said).toMatch(/^drill: the API at \S+ asks for a token.*AUTH_TOKEN/m)
  })

  test('a processor that does not start again ends the disturbances, and all is checked with those that are left', async () => {
    const { code, said } = await drill('kill', ...entry('../faults/starts-once.ts', import.meta.url))
    expect(code, said).toBe(1)
    expect(said).toMatch(/^drill: start p\d failed: processor ended: there is no second start$/m)
    expect(said).toMatch(/^kill: 1 of \d+ invariants BROKEN, 2 disturbances, then start p\d failed$/m)
  })

  test('a product that commits an offset without its changelog is found out', async () => {
    const { code, said } = await drill('kill', ...entry('offset-alone.ts', import.meta.url))
    expect(code, said).toBe(1)
    expect(said).toMatch(/BROKEN {2}a reader of the changelog sees what the API answers/)
  })
})
