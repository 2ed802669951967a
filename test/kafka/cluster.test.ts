import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { Cluster } from '../../simulators/cluster.ts'
import type { Kafka } from '../../simulators/kafka/kafka.ts'
import { freePorts, Program } from '../../simulators/program.ts'
import type { DeviceAnswer } from '../system/answers.ts'
import { ResendingDevice } from '../system/resending-device.ts'
import { verify } from './invariants.ts'
import { kafkaMissing, startKafka } from './kafka.ts'

const PARTITIONS = 4
const DEVICES = 8
const DEADLINE = { timeout: 20_000, interval: 10 }
/** For the start of a process, as a cluster gives each of its own. */
const READY_MS = 90_000

/** Asks for the devices one after the other, without a pause, and notes what was not answered. */
class Dashboard {
  reads = 0
  readonly failures: string[] = []
  readonly #cluster: Cluster
  readonly #ids: readonly string[]
  #on = true
  readonly #ended: Promise<void>

  constructor(cluster: Cluster, ids: readonly string[]) {
    this.#cluster = cluster
    this.#ids = ids
    this.#ended = this.#run()
  }

  async #run(): Promise<void> {
    while (this.#on) {
      const id = this.#ids[this.reads++ % this.#ids.length]
      const response = await this.#cluster.get(`/v1/devices/${id}`)
      const text = await response.text()
      if (!response.ok) this.failures.push(`${Date.now()} ${response.status} ${text}`)
    }
  }

  async stop(): Promise<void> {
    this.#on = false
    await this.#ended
  }
}

describe.skipIf(kafkaMissing !== undefined)('a cluster of processes', { timeout: 600_000 }, () => {
  let kafka: Kafka
  let cluster: Cluster
  const devices: ResendingDevice[] = []

  beforeAll(async () => {
    kafka = await startKafka()
    cluster = await Cluster.open(kafka.brokers, PARTITIONS)
  }, 180_000)

  afterAll(async () => {
    await Promise.all(devices.map((device) => device.destroy()))
    await cluster?.[Symbol.asyncDispose]()
    await kafka?.[Symbol.asyncDispose]()
  })

  const acknowledged = () => devices.map((device) => device.acknowledged)
  const answer = (id: string) => cluster.json<DeviceAnswer>(`/v1/devices/${id}`)

  /** Resolves when every device has had `count` more messages acknowledged. */
  const more = (count: number) => {
    const goals = acknowledged().map((seq) => seq + count)
    return vi.waitFor(() => devices.forEach((d, i) => expect(d.acknowledged).toBeGreaterThan(goals[i]!)), DEADLINE)
  }

  /** Resolves when what is acknowledged now is in the answers. */
  const applied = async () => {
    const goals = acknowledged()
    await vi.waitFor(async () => {
      const answers = await Promise.all(devices.map(({ id }) => answer(id)))
      answers.forEach(({ counters }, i) => expect(counters.messages).toBeGreaterThanOrEqual(goals[i]!))
    }, DEADLINE)
  }

  const owned = (counts: Record<string, number>) =>
    vi.waitFor(async () => expect(await cluster.owned()).toEqual(counts), DEADLINE)

  const standbys = (count: number) =>
    vi.waitFor(async () => {
      const running = (await cluster.partitions()).flatMap((p) => p.standbys.filter(({ state }) => state === 'running'))
      expect(running).toHaveLength(count)
    }, DEADLINE)

  test('loses nothing and goes on answering while processors and Kafka die, freeze, come and go', async () => {
    const [a, b, ingest, api] = await Promise.all([
      cluster.processor('a'),
      cluster.processor('b'),
      cluster.ingest(),
      cluster.api(),
    ])
    for (let i = 0; i < DEVICES; i++) devices.push(new ResendingDevice(`device-${i}`, cluster.mqttPort))
    for (const device of devices) device.start()
    await more(20)
    await owned({ a: 2, b: 2 })
    await standbys(4)
    await applied()
    const ids = devices.map(({ id }) => id)
    const dashboard = new Dashboard(cluster, ids)

    await a.kill()
    const killed = performance.now()
    await owned({ b: 4 })
    const moved = performance.now() - killed
    await more(20)
    await applied()

    const c = await cluster.processor('c')
    await owned({ b: 2, c: 2 })
    await standbys(4)
    await more(20)

    b.child.kill('SIGSTOP')
    await owned({ c: 4 })
    b.child.kill('SIGCONT')
    await owned({ b: 2, c: 2 })
    await standbys(4)
    await more(20)

    expect(await b.stop()).toEqual({ code: 0, signal: null })
    await owned({ c: 4 })
    await more(20)

    await kafka.kill()
    await vi.waitFor(async () => expect(await cluster.isReady(ingest)).toBe(false), DEADLINE)
    // Nobody can hold a claim now, and what was the owner's copy is read as a standby's.
    await vi.waitFor(async () => expect((await answer('device-0')).freshness.servedBy).toBe('standby'), DEADLINE)
    await Promise.all(ids.map(answer))
    await kafka.start()
    await more(20)
    await applied()
    await owned({ c: 4 })

    await dashboard.stop()
    process.stdout.write(
      `after kill -9 all partitions ran elsewhere in ${moved.toFixed()} ms; ${dashboard.reads} reads, ${dashboard.failures.length} failed\n`,
    )
    expect(dashboard.failures, [a, b, c, api].map(({ stderr }) => stderr).join('\n')).toEqual([])

    await Promise.all(devices.map((device) => device.finish()))
    await verify(cluster, devices, { c })
    const ends = await Promise.all([ingest, api].map((program) => program.stop()))
    expect(ends).toEqual(Array.from({ length: 2 }, () => ({ code: 0, signal: null })))
    for (const { stderr } of [ingest, c, api]) expect(stderr).not.toContain(cluster.env.CLUSTER_SECRET)
  })

  test('is one process too, when all roles run in it', async () => {
    const [port] = await freePorts(1)
    await using second = await Cluster.open(kafka.brokers, PARTITIONS)
    const env = { ...second.env, HTTP_PORT: String(port), MQTT_PORT: '0', DATA_DIR: second.dataDir }
    const up = Program.main(['up', '--processors', '2'], env)
    try {
      await up.ready('up', `http://127.0.0.1:${port}`, READY_MS)
      await vi.waitFor(async () => {
        const response = await fetch(`http://127.0.0.1:${port}/v1/partitions`)
        const { partitions } = (await response.json()) as { partitions: { owner: { instance: string } | null }[] }
        expect(new Set(partitions.map(({ owner }) => owner?.instance)).size).toBe(2)
      }, DEADLINE)
      expect(up.stdout).toContain(`Kafka at ${kafka.brokers}, ${PARTITIONS} partitions`)
      expect(await up.stop()).toEqual({ code: 0, signal: null })
    } finally {
      await up.kill()
    }
  })
})
