import { connect, type MqttClient } from 'mqtt'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import type { Kafka } from '../../simulators/kafka/kafka.ts'
import { kafkaMissing, startKafka } from '../kafka/kafka.ts'
import type { DeviceAnswer } from '../system/answers.ts'
import { ResendingDevice } from '../system/resending-device.ts'
import { isThere } from './tools.ts'
import { Topology } from './topology.ts'

const DEADLINE = { timeout: 60_000, interval: 20 }
const here = kafkaMissing === undefined && isThere('haproxy') && isThere('prometheus')

/** Rejects with what CONNACK said, or when the connection is closed without one. */
async function up(port: number, clientId: string): Promise<MqttClient> {
  const client = connect({ host: '127.0.0.1', port, clientId, reconnectPeriod: 0, connectTimeout: 5_000 })
  await new Promise<void>((resolve, reject) => {
    client.once('connect', () => resolve())
    client.once('error', reject)
    client.once('close', () => reject(new Error('closed without a CONNACK')))
  })
  return client
}

const say = (client: MqttClient, id: string, x: number) =>
  client.publishAsync(`devices/${id}/telemetry`, JSON.stringify({ x }), { qos: 1 })

describe.skipIf(!here)('the cluster of compose.yaml, as processes', { timeout: 180_000 }, () => {
  let kafka: Kafka
  let cluster: Topology

  beforeAll(async () => {
    kafka = await startKafka()
    cluster = await Topology.open(kafka.brokers)
  }, 240_000)

  afterAll(async () => {
    await cluster?.[Symbol.asyncDispose]()
    await kafka?.[Symbol.asyncDispose]()
  })

  async function device(id: string): Promise<DeviceAnswer> {
    const response = await cluster.get('balancer:8080', `/v1/devices/${id}`)
    expect(response.status, await response.clone().text()).toBe(200)
    return (await response.json()) as DeviceAnswer
  }

  const tracked = (name: string) => cluster.metric(`${name}:8081`, 'tidemark_ingest_tracked_devices')

  test('takes a message and answers for it through the balancer, and Prometheus sees every process', async () => {
    const it = await up(cluster.port('balancer:1883'), 'truck-17')
    await say(it, 'truck-17', 1)
    await vi.waitFor(async () => expect((await device('truck-17')).reported.x?.value).toBe(1), DEADLINE)
    await it.endAsync()
    // Metrics are those of one process, and not for everyone.
    expect((await cluster.get('balancer:8080', '/metrics')).status).toBe(404)
    const query = async (expression: string) => {
      const response = await cluster.get('prometheus:9090', `/api/v1/query?query=${encodeURIComponent(expression)}`)
      const { data } = (await response.json()) as { data: { result: { value: [number, string] }[] } }
      return data.result.map(({ value }) => value[1])
    }
    await vi.waitFor(async () => {
      expect(await query('sum by (job) (up)')).toHaveLength(4)
      expect(await query('sum(up)')).toEqual(['8'])
      expect(await query('sum(tidemark_partitions{role="owner",state="running"})')).toEqual(['12'])
      expect(await query('max(tidemark_log_partitions)')).toEqual(['12'])
      expect(await query('haproxy_backend_active_servers{proxy="api"}')).toEqual(['2'])
      expect(await query('sum(tidemark_end_to_end_latency_seconds_count) > 0')).toHaveLength(1)
    }, DEADLINE)
  })

  test('sees a device that moves to the other ingest as online, whatever its old session says after that', async () => {
    const [first, second] = [cluster.port('ingest-1:1883'), cluster.port('ingest-2:1883')]
    const old = await up(first, 'mover')
    await say(old, 'mover', 1)
    await vi.waitFor(async () => expect((await device('mover')).connectivity.state).toBe('online'), DEADLINE)
    const before = (await device('mover')).connectivity.session
    const fresh = await up(second, 'mover')
    await say(fresh, 'mover', 2)
    await vi.waitFor(async () => expect((await device('mover')).connectivity.session).toBeGreaterThan(before), DEADLINE)
    old.stream.destroy()
    // The old session's end is in the log now, and what follows comes after it.
    await vi.waitFor(async () => expect(await tracked('ingest-1')).toBe(0), DEADLINE)
    await say(fresh, 'mover', 3)
    await vi.waitFor(async () => expect((await device('mover')).reported.x?.value).toBe(3), DEADLINE)
    const { connectivity } = await device('mover')
    expect(connectivity).toMatchObject({ state: 'online', reason: 'connected' })
    await fresh.endAsync()
    await vi.waitFor(async () => {
      const ended = (await device('mover')).connectivity
      expect(ended).toMatchObject({ state: 'offline', reason: 'client disconnect', session: connectivity.session })
    }, DEADLINE)
    // And back again: a later session of the first process is newer than one of the second.
    const back = await up(first, 'mover')
    await say(back, 'mover', 4)
    await vi.waitFor(async () => expect((await device('mover')).connectivity.state).toBe('online'), DEADLINE)
    expect((await device('mover')).connectivity.session).toBeGreaterThan(connectivity.session)
    await back.endAsync()
  })

  test('tells devices by CONNACK 3 that Kafka is away, and takes them when it is back', async () => {
    await kafka.kill()
    for (const name of ['ingest-1', 'ingest-2']) {
      await vi.waitFor(async () => expect((await cluster.get(`${name}:8081`, '/readyz')).status).toBe(503), DEADLINE)
    }
    await vi.waitFor(async () => {
      const refusal: unknown = await up(cluster.port('balancer:1883'), 'early').catch((error: unknown) => error)
      expect(refusal).toMatchObject({ code: 3 })
    }, DEADLINE)
    // Who reads does not notice.
    for (let i = 0; i < 20; i++) expect((await device('mover')).deviceId).toBe('mover')
    for (const name of ['api-1', 'api-2']) expect((await cluster.get(`${name}:8080`, '/readyz')).status).toBe(200)
    await kafka.start()
    await vi.waitFor(() => up(cluster.port('balancer:1883'), 'early').then((it) => it.endAsync()), DEADLINE)
  })

  test('carries a device on when its ingest is killed, and loses nothing', async () => {
    const truck = new ResendingDevice('truck-18', cluster.port('balancer:1883'))
    truck.start()
    await vi.waitFor(async () => expect((await device('truck-18')).connectivity.state).toBe('online'), DEADLINE)
    const { session } = (await device('truck-18')).connectivity
    // A device that has gone is tracked until its end is in the log.
    const names = ['ingest-1', 'ingest-2'] as const
    await vi.waitFor(async () => {
      expect((await Promise.all(names.map(tracked))).toSorted((a, b) => Number(a) - Number(b))).toEqual([0, 1])
    }, DEADLINE)
    const name = (await tracked('ingest-1')) === 1 ? 'ingest-1' : 'ingest-2'
    await cluster.program(name).kill()
    const killedAt = truck.made
    await vi.waitFor(() => expect(truck.acknowledged).toBeGreaterThan(killedAt + 20), DEADLINE)
    await truck.finish()
    await vi.waitFor(async () => {
      const { counters, connectivity } = await device('truck-18')
      expect(counters).toMatchObject({ messages: truck.made, late: 0 })
      expect(connectivity).toMatchObject({ state: 'offline', reason: 'client disconnect' })
      expect(connectivity.session).toBeGreaterThan(session)
    }, DEADLINE)
  })

  test('answers from the other api when one ends, and with a problem when none is left', async () => {
    expect(await cluster.program('api-1').stop()).toEqual({ code: 0, signal: null })
    for (let i = 0; i < 20; i++) expect((await device('truck-18')).deviceId).toBe('truck-18')
    await cluster.program('api-2').kill()
    await vi.waitFor(async () => {
      const response = await cluster.get('balancer:8080', '/v1/devices/truck-18')
      expect(response.headers.get('content-type')).toBe('application/problem+json')
      expect(response.headers.get('retry-after')).toBe('1')
      expect(await response.json()).toMatchObject({ status: 503, detail: 'no API process is ready' })
    }, DEADLINE)
  })
})
