import { EventSource } from 'eventsource'
import { connectAsync } from 'mqtt'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import type { Status } from '../../processor/contract/status.ts'
import type { Log } from '../../processor/log/log.ts'
import { Cluster } from '../../simulators/cluster.ts'
import type { Kafka } from '../../simulators/kafka/kafka.ts'
import { freePorts, type Program } from '../../simulators/program.ts'
import { FollowedDevices } from '../system/followed-devices.ts'
import { ResendingDevice } from '../system/resending-device.ts'
import { kafkaMissing, startKafka } from './kafka.ts'

const PARTITIONS = 4
const DEVICES = 6
/** Streams broken off, each to go on at the other process. */
const MOVES = 8
const DEADLINE = { timeout: 30_000, interval: 10 }

class Dashboard extends FollowedDevices {
  #source: EventSource | undefined

  connect(port: number): void {
    this.#source?.close()
    const url = `http://127.0.0.1:${port}/v1/changes?q=deviceId:live-*&snapshot=true&lastEventId=${this.lastEventId}`
    this.#source = new EventSource(url)
    this.follow(this.#source)
  }

  close(): void {
    this.#source?.close()
  }
}

describe.skipIf(kafkaMissing !== undefined)('changes from two api processes', { timeout: 330_000 }, () => {
  let kafka: Kafka
  let cluster: Cluster
  const dashboard = new Dashboard()
  const devices: ResendingDevice[] = []

  beforeAll(async () => {
    kafka = await startKafka()
    cluster = await Cluster.open(kafka.brokers, PARTITIONS, { HTTP_DRAIN_SECONDS: '0' })
  }, 180_000)

  afterAll(async () => {
    dashboard.close()
    await Promise.all(devices.map((device) => device.destroy()))
    await cluster?.[Symbol.asyncDispose]()
    await kafka?.[Symbol.asyncDispose]()
  })

  test('a client that moves between them, also from one that is killed or stopped, comes to hold what the changelog holds', async () => {
    const [second] = (await freePorts(1)) as [number]
    await cluster.processor('one')
    await cluster.ingest()
    const ports = [cluster.httpPort, second]
    const apis: Program[] = [await cluster.api(), await cluster.api(second)]
    const client = await connectAsync({ protocol: 'mqtt', host: '127.0.0.1', port: cluster.mqttPort })
    // A device that reports once, so that a change that is missed is not made good by the next.
    const once = (name: string) => client.publishAsync(`devices/live-${name}/telemetry`, '{"x":1}', { qos: 1 })
    for (let i = 0; i < DEVICES; i++) devices.push(new ResendingDevice(`live-${i}`, cluster.mqttPort, 0, 1))
    for (const device of devices) device.start()
    dashboard.connect(cluster.httpPort)
    await vi.waitFor(() => {
      expect(dashboard.devices.size).toBe(DEVICES)
      // A stream that is cut within its snapshot has no id to go on from.
      expect(dashboard.lastEventId).not.toMatch(/^-?$/)
    }, DEADLINE)
    for (let move = 1; move <= MOVES; move++) {
      const seen = dashboard.events
      await vi.waitFor(() => expect(dashboard.events).toBeGreaterThan(seen + DEVICES), DEADLINE)
      const [from, to] = [1 - (move % 2), move % 2]
      await once(`before-${move}`)
      if (move === 3) await apis[from]?.kill()
      else if (move === 6) await apis[from]?.stop()
      dashboard.close()
      await once(`between-${move}`)
      dashboard.connect(ports[to] as number)
      if (move === 3 || move === 6) apis[from] = await cluster.api(ports[from])
    }
    await Promise.all(devices.map((device) => device.finish()))
    await client.endAsync()
    await using log = await cluster.log()
    await vi.waitFor(async () => {
      const last = await lastStatuses(log)
      for (const { id, acknowledged } of devices) expect(last.get(id)?.counters.messages).toBe(acknowledged)
      expect(last.size).toBe(DEVICES + 2 * MOVES)
      expect(dashboard.devices).toEqual(last)
    }, DEADLINE)
    expect(dashboard.resets).toEqual(['start'])
  })
})

/** By device: what the changelog itself ends with. */
async function lastStatuses(log: Log): Promise<Map<string, Status>> {
  const last = new Map<string, Status>()
  for (let index = 0; index < PARTITIONS; index++) {
    const { start, end } = await log.bounds({ topic: 'status', index })
    const stop = new AbortController()
    if (start >= end) continue
    const limits = { maxRecords: 1_000, maxBytes: 1024 * 1024 }
    for await (const { records, next } of log.follow({ topic: 'status', index }, start, limits, stop.signal)) {
      for (const { key, value } of records) {
        if (value === null) last.delete(key as string)
        else last.set(key as string, JSON.parse(Buffer.from(value).toString()) as Status)
      }
      if (next >= end) break
    }
  }
  return last
}
