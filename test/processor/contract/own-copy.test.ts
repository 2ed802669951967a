import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { Registry } from 'prom-client'
import { expect, it } from 'vitest'
import type { Appender } from '../../../ingest/append/batcher.ts'
import { DEFAULT_LIMITS } from '../../../ingest/limits.ts'
import { IngestMetrics } from '../../../ingest/metrics.ts'
import { Persistence, type StoredPacket } from '../../../ingest/mqtt/persistence.ts'
import { Presence } from '../../../ingest/mqtt/presence.ts'
import { RetainedStore } from '../../../ingest/mqtt/retained.ts'
import type { Session } from '../../../ingest/mqtt/session.ts'
import { routeOf } from '../../../ingest/mqtt/topics.ts'
import { Responses } from '../../../processor/log/kafka/protocol/wire.ts'

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void

const PAYLOAD = '{"a":21.5}'

/** Bytes that cannot be given back while it is kept. */
function kept(bytes: Uint8Array | undefined): number {
  return bytes?.buffer.byteLength ?? 0
}

it('a queued message keeps no more memory than it has bytes', async () => {
  const persistence = new Persistence(DEFAULT_LIMITS, new IngestMetrics(new Registry()))
  for (const payload of [Buffer.from(PAYLOAD), PAYLOAD]) {
    await persistence.outgoingEnqueue({ clientId: 'a' }, { cmd: 'publish', topic: 'a/b', payload, qos: 1 })
  }
  const queue: StoredPacket[] = await persistence.outgoingStream({ id: 'a' }).toArray()
  expect(queue.map(({ payload }) => String(payload))).toEqual([PAYLOAD, PAYLOAD])
  for (const { payload } of queue) expect(kept(payload as Buffer)).toBe(PAYLOAD.length)
})

it('a retained message keeps no more memory than it has bytes', async () => {
  const store = new RetainedStore(DEFAULT_LIMITS, new IngestMetrics(new Registry()))
  store.put({ topic: 'a', payload: Buffer.from(PAYLOAD) })
  const [packet] = await store.matching(['a']).toArray()
  expect(kept(packet?.payload)).toBe(PAYLOAD.length)
})

it('a short response of a Kafka broker keeps no more memory than it has bytes', () => {
  let given: Buffer | undefined
  const responses = new Responses((response) => {
    given = response
  })
  responses.target.set([0, 0, 0, 2, 7, 8])
  responses.read(6)
  expect([...(given as Buffer)]).toEqual([0, 0, 0, 2, 7, 8])
  expect(kept(given)).toBe(6)
})

it('a device that is tracked keeps no topic', () => {
  const appender = { of: () => ({ add() {} }) } as unknown as Appender
  const presence = new Presence(appender, DEFAULT_LIMITS, new IngestMetrics(new Registry()), Date.now)
  const session = { ended: false, devices: new Map<string, number>() } as Session
  const topicBytes = 60_000
  collect()
  const before = process.memoryUsage().heapUsed
  for (let i = 0; i < 1_000; i++) {
    const topic = Buffer.from(`devices/number-${i}-of-the-fleet/telemetry/${'m'.repeat(topicBytes)}`).toString()
    presence.spoke(session, routeOf(topic).deviceId as string)
  }
  collect()
  expect(process.memoryUsage().heapUsed - before).toBeLessThan((1_000 * topicBytes) / 10)
  expect(session.devices.has('number-999-of-the-fleet')).toBe(true)
})
