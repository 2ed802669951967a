import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { connectAsync } from 'mqtt'
import pino from 'pino'
import { RocksLevel } from 'rocksdb-level'
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest'
import { LevelStores } from '../../processor/store/level-stores.ts'
import { Cluster } from '../../simulators/cluster.ts'
import type { Kafka } from '../../simulators/kafka/kafka.ts'
import { Program, removeFolder, temporaryFolder } from '../../simulators/program.ts'
import { ResendingDevice } from '../system/resending-device.ts'
import { verify } from './invariants.ts'
import { kafkaMissing, startKafka } from './kafka.ts'

const PARTITIONS = 4
const DEVICES = 4
const WINDOW = 4
/** CONNACK, MQTT 3.1.1 3.2.2.3. */
const SERVER_UNAVAILABLE = 3
const DEADLINE = { timeout: 30_000, interval: 10 }

/** One cluster goes through all of it; each trial has devices of its own, and ends with every invariant checked. */
describe.skipIf(kafkaMissing !== undefined)('a cluster under load', { timeout: 300_000 }, () => {
  let kafka: Kafka
  let cluster: Cluster
  let ingest: Program
  const all: ResendingDevice[] = []
  let devices: ResendingDevice[] = []
  const processors: Program[] = []

  async function processor(instance: string): Promise<Program> {
    const program = await cluster.processor(instance)
    processors.push(program)
    return program
  }

  beforeAll(async () => {
    kafka = await startKafka()
    cluster = await Cluster.open(kafka.brokers, PARTITIONS)
    const [first] = await Promise.all([processor('a'), cluster.api()])
    ingest = await cluster.ingest()
    await first.stop()
  }, 180_000)

  afterEach(async () => {
    await Promise.all(devices.map((device) => device.destroy()))
    await Promise.all(processors.map((program) => program.kill()))
  })

  afterAll(async () => {
    await cluster?.[Symbol.asyncDispose]()
    await kafka?.[Symbol.asyncDispose]()
  })

  function load(trial: string): void {
    devices = Array.from({ length: DEVICES }, (_, i) => {
      return new ResendingDevice(`${trial}-${i}`, cluster.mqttPort, 0, WINDOW)
    })
    all.push(...devices)
    for (const device of devices) device.start()
  }

  /** Resolves when each device has had so many more messages acknowledged. */
  function more(count: number): Promise<void> {
    const goals = devices.map(({ acknowledged }) => acknowledged + count)
    return vi.waitFor(
      () => devices.forEach((device, i) => expect(device.acknowledged).toBeGreaterThan(goals[i] as number)),
      DEADLINE,
    )
  }

  const owned = (counts: Record<string, number>) =>
    vi.waitFor(async () => expect(await cluster.owned()).toEqual(counts), DEADLINE)

  async function settle(running: Readonly<Record<string, Program>>): Promise<void> {
    await Promise.all(devices.map((device) => device.finish()))
    await verify(cluster, all, running)
  }

  test('grows from one processor to three, and back', async () => {
    load('growth')
    const a = await processor('a')
    await owned({ a: 4 })
    await more(50)
    const [b, c] = await Promise.all([processor('b'), processor('c')])
    await vi.waitFor(
      async () => expect(Object.values(await cluster.owned()).sort((x, y) => x - y)).toEqual([1, 1, 2]),
      DEADLINE,
    )
    await more(50)
    await Promise.all([b.stop(), c.stop()])
    await owned({ a: 4 })
    await more(50)
    await settle({ a })
  })

  test('goes on when Kafka was stopped in order, and when it hung', async () => {
    load('kafka')
    const [a, b] = await Promise.all([processor('a'), processor('b')])
    await more(50)
    await kafka.stop()
    await vi.waitFor(async () => expect(await cluster.isReady(ingest)).toBe(false), DEADLINE)
    await kafka.start()
    await more(50)

    process.kill(kafka.pid as number, 'SIGSTOP')
    try {
      // What was sent is given up, and whoever comes then is told at once that it is no use.
      await vi.waitFor(async () => {
        expect(await connack(cluster.mqttPort)).toBe(SERVER_UNAVAILABLE)
        const metrics = await cluster.metrics(ingest)
        for (const held of ['held_messages', 'held_bytes']) expect(metrics).toContain(`tidemark_ingest_${held} 0\n`)
      }, DEADLINE)
    } finally {
      process.kill(kafka.pid as number, 'SIGCONT')
    }
    await more(50)
    await settle({ a, b })
  })

  test('restores a store whose folder was removed, and refuses that of another cluster', async () => {
    load('stores')
    const [a, b] = await Promise.all([processor('a'), processor('b')])
    await more(50)
    await a.kill()
    await rm(join(cluster.dataDir, 'a'), { recursive: true })
    await owned({ b: 4 })
    const again = await processor('a')
    await owned({ a: 2, b: 2 })
    await more(50)
    await again.kill()

    const folder = join(cluster.dataDir, 'a')
    await rm(folder, { recursive: true })
    await pretend(folder)
    const strange = await processor('a')
    await owned({ a: 2, b: 2 })
    await more(50)
    expect(strange.stderr).toContain('store wiped: it belongs to another log')
    expect((await cluster.get('/v1/devices/stranger')).status).toBe(404)
    await settle({ a: strange, b })
  })

  test('keeps no process alive that cannot begin, though its log is there', async () => {
    const program = Program.main(['up', '--processors', '2'], { ...cluster.env, QUERY_PORT: '65535' })
    expect(await program.exited, program.stderr).toEqual({ code: 2, signal: null })
    expect(program.stderr).toContain('tidemark: QUERY_PORT=65535: 2 processors')
  })

  test('lets no second processor have the name of a live one', async () => {
    load('names')
    const a = await processor('a')
    await more(20)
    const folder = await temporaryFolder()
    const twin = Program.main(['processor'], { ...cluster.env, INSTANCE_ID: 'a', DATA_DIR: folder, LOG_LEVEL: 'fatal' })
    expect(await twin.exited, twin.stderr).toEqual({ code: 2, signal: null })
    expect(twin.stderr).toMatch(/^tidemark: INSTANCE_ID=a: a live processor at 127\.0\.0\.1:\d+ has this name.*\n$/)
    await removeFolder(folder)
    await more(20)
    await owned({ a: 4 })
    expect(a.stderr).not.toContain('dropped')
    await settle({ a })
  })
})

/** The return code that a client gets which comes now. */
async function connack(port: number): Promise<unknown> {
  try {
    const client = await connectAsync({ protocol: 'mqtt', host: '127.0.0.1', port, reconnectPeriod: 0 })
    await client.endAsync(true)
    return 0
  } catch (error) {
    return (error as { code?: unknown }).code
  }
}

/** A store as another cluster left it, with a device in every partition that nobody here has heard of. */
async function pretend(folder: string): Promise<void> {
  const db = new RocksLevel<string, Buffer>(folder, { keyEncoding: 'utf8', valueEncoding: 'buffer' })
  const identity = { cluster: 'another', telemetry: 't', status: 's', partitions: PARTITIONS }
  await using stores = await LevelStores.open(db, { identity, logger: pino({ level: 'silent' }) })
  for (let index = 0; index < PARTITIONS; index++) {
    const store = await stores.store(index)
    const reached = { input: 1, changelog: 1, whole: true, since: Date.now() }
    await store.commit(new Map([['stranger', Buffer.from('{"deviceId":"stranger"}')]]), reached, 1)
  }
}
