import { Duplex } from 'node:stream'
import { Registry } from 'prom-client'
import { expect, it, vi } from 'vitest'
import { Connection } from '../../ingest/connection.ts'
import { Counts } from '../../ingest/counts.ts'
import { DEFAULT_LIMITS } from '../../ingest/limits.ts'
import { Pressure } from '../../ingest/pressure.ts'
import { type Fixture, openIngest, pinged, publication, RawClient, WAIT } from './fixture.ts'

const TOPIC = 'devices/truck-17/telemetry'

/** Takes one write, and never says that it was passed on. */
const stuck = () => new Duplex({ read() {}, write() {}, writableHighWaterMark: 10 })

it('of clients that do not read, the one that brings all of them over the bound in all is cut', () => {
  const limits = { ...DEFAULT_LIMITS, maxOutgoingBytes: 1_000, maxOutgoingTotalBytes: 1_500 }
  const pressure = new Pressure(limits, new Counts(new Registry()))
  const [one, other] = [new Connection(stuck(), pressure), new Connection(stuck(), pressure)]
  other.on('error', () => undefined)
  expect(one.write(Buffer.alloc(900))).toBe(false)
  expect(other.write(Buffer.alloc(600))).toBe(false)
  expect([one.closeReason, other.closeReason]).toEqual([undefined, undefined])
  other.write(Buffer.alloc(1))
  expect([one.closeReason, other.closeReason]).toEqual([undefined, 'slow reader'])
  expect(pressure.outgoingBytes).toBe(900)
})

/** A session that is away, with a subscription. */
async function away({ ingest, metric }: Fixture, clientId: string): Promise<void> {
  const client = await RawClient.open(ingest.port, { clientId, clean: false })
  client.send({ cmd: 'subscribe', messageId: 1, subscriptions: [{ topic: 'home/#', qos: 1 }] })
  await vi.waitFor(() => expect(client.of('suback').length).toBe(1), WAIT)
  client.send({ cmd: 'disconnect' })
  await vi.waitFor(async () => expect(await metric('connections')).toBe(0), WAIT)
}

/** Takes what is queued for a session, and says how many that was. */
async function collected({ ingest }: Fixture, clientId: string): Promise<number> {
  const client = await RawClient.open(ingest.port, { clientId, clean: false })
  await pinged(client)
  const ids = client.ids('publish')
  for (const messageId of ids) client.send({ cmd: 'puback', messageId: messageId as number })
  await pinged(client)
  return ids.length
}

it.each([
  { bound: 'messages', limits: { maxQueuedTotal: 4 } },
  { bound: 'bytes', limits: { maxQueuedBytes: 4 * ('home/a'.length + 100) } },
])('the queues of all sessions hold no more $bound than they may in all, and have room again', async ({ limits }) => {
  const fixture = await openIngest(limits)
  for (const clientId of ['a', 'b']) await away(fixture, clientId)
  const publisher = await RawClient.open(fixture.ingest.port)
  let id = 0
  const publish = async (count: number) => {
    for (let n = 0; n < count; n++) publisher.publish('home/a', 'x'.repeat(100), 1, ++id)
    await vi.waitFor(() => expect(publisher.of('puback').length).toBe(id), WAIT)
  }
  const hits = () => fixture.metric('bound_hits_total', { bound: 'session queue' })
  await publish(3)
  expect(await hits()).toBe(2)
  expect(await collected(fixture, 'a')).toBe(2)
  expect(await collected(fixture, 'b')).toBe(2)
  await publish(2)
  expect(await hits()).toBe(2)
})

const filters = (count: number) => Array.from({ length: count }, (_, i) => ({ topic: `home/${i}`, qos: 0 as const }))

it('closes a connection whose packet has more filters than may be', async () => {
  const { ingest, metric } = await openIngest({ maxFilters: 3 })
  const client = await RawClient.open(ingest.port)
  client.send({ cmd: 'subscribe', messageId: 1, subscriptions: filters(3) })
  await vi.waitFor(() => expect(client.of('suback').length).toBe(1), WAIT)
  client.send({ cmd: 'subscribe', messageId: 2, subscriptions: filters(4) })
  await client.end()
  expect(client.ids('suback')).toEqual([1])
  await vi.waitFor(async () => expect(await metric('closes_total', { reason: 'too many filters' })).toBe(1), WAIT)
})

it('a batch is appended as soon as it has the bytes of one, without waiting for more', async () => {
  const { ingest, log } = await openIngest({ lingerMs: 1_000_000, maxBatchBytes: 10_000, appendDeadlineMs: 1_000_000 })
  const client = await RawClient.open(ingest.port)
  log.hold = true
  client.write(Buffer.concat(Array.from({ length: 25 }, (_, i) => publication(TOPIC, 'x'.repeat(1_000), 1, i + 1))))
  await vi.waitFor(() => expect(log.heldMessages()).toBeGreaterThan(0), WAIT)
  await pinged(client)
  const sizes = log.appends.map(({ records }) => records.reduce((sum, { value }) => sum + (value?.length ?? 0), 0))
  for (const size of sizes) {
    expect(size).toBeGreaterThan(5_000)
    expect(size).toBeLessThanOrEqual(10_000)
  }
  expect(log.heldMessages()).toBeLessThan(25)
})
