import { Duplex } from 'node:stream'
import { Registry } from 'prom-client'
import { expect, it, vi } from 'vitest'
import { Connection } from '../../ingest/connection/connection.ts'
import { Pressure } from '../../ingest/connection/pressure.ts'
import { DEFAULT_LIMITS } from '../../ingest/limits.ts'
import { IngestMetrics } from '../../ingest/metrics.ts'
import { type Fixture, openIngest, pinged, publication, RawClient, WAIT } from './fixture.ts'

const TOPIC = 'devices/truck-17/telemetry'

/** Takes one write, and never says that it was passed on. */
const stuck = () => new Duplex({ read() {}, write() {}, writableHighWaterMark: 10 })

it('of clients that do not read, the one that brings all of them over the bound in all is cut', () => {
  const limits = { ...DEFAULT_LIMITS, maxOutgoingBytes: 1_000, maxOutgoingTotalBytes: 1_500 }
  const pressure = new Pressure(limits, new IngestMetrics(new Registry()))
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
async function away(fixture: Fixture, clientId: string, qos: 1 | 2 = 1): Promise<void> {
  const client = await RawClient.open(fixture.ingest.port, { clientId, clean: false })
  client.send({ cmd: 'subscribe', messageId: 1, subscriptions: [{ topic: 'home/#', qos }] })
  await vi.waitFor(() => expect(client.of('suback').length).toBe(1), WAIT)
  await left(fixture, client)
}

/** The only one who is connected goes. */
async function left({ metric }: Fixture, client: RawClient): Promise<void> {
  client.send({ cmd: 'disconnect' })
  await vi.waitFor(async () => expect(await metric('connections')).toBe(0), WAIT)
}

async function publish(fixture: Fixture, count: number, qos: 1 | 2 = 1): Promise<void> {
  const publisher = await RawClient.open(fixture.ingest.port)
  for (let id = 1; id <= count; id++) publisher.publish('home/a', 'x'.repeat(100), qos, id)
  await vi.waitFor(() => expect(publisher.of(qos === 1 ? 'puback' : 'pubrec').length).toBe(count), WAIT)
  await left(fixture, publisher)
}

/** Takes what is queued for a session: so many messages. */
async function collect(fixture: Fixture, clientId: string, count: number, qos: 1 | 2 = 1): Promise<void> {
  const client = await RawClient.open(fixture.ingest.port, { clientId, clean: false })
  // PINGRESP may overtake them.
  await vi.waitFor(() => expect(client.of('publish').length).toBeGreaterThanOrEqual(count), WAIT)
  await pinged(client)
  expect(client.of('publish').length).toBe(count)
  const ids = client.ids('publish') as number[]
  for (const cmd of qos === 1 ? (['puback'] as const) : (['pubrec', 'pubcomp'] as const)) {
    for (const messageId of ids) client.send({ cmd, messageId })
    await pinged(client)
  }
  await left(fixture, client)
}

const hits = ({ metric }: Fixture) => metric('bound_hits_total', { bound: 'session queue' })
/** Of four messages. */
const maxQueuedBytes = 4 * ('home/a'.length + 100)

it.each([
  { bound: 'messages', limits: { maxQueuedTotal: 4 }, qos: 1 as const },
  { bound: 'bytes', limits: { maxQueuedBytes }, qos: 1 as const },
  { bound: 'bytes', limits: { maxQueuedBytes }, qos: 2 as const },
])(
  'the queues of all sessions hold no more $bound at QoS $qos than they may in all, and have room again',
  async ({ limits, qos }) => {
    const fixture = await openIngest(limits)
    for (const clientId of ['a', 'b']) await away(fixture, clientId, qos)
    await publish(fixture, 3, qos)
    expect(await hits(fixture)).toBe(2)
    await collect(fixture, 'a', 2, qos)
    await collect(fixture, 'b', 2, qos)
    await publish(fixture, 2, qos)
    expect(await hits(fixture)).toBe(2)
  },
)

it('the queue of a session that begins anew leaves its room to others', async () => {
  const fixture = await openIngest({ maxQueuedTotal: 4 })
  await away(fixture, 'a')
  await publish(fixture, 4)
  await left(fixture, await RawClient.open(fixture.ingest.port, { clientId: 'a', clean: true }))
  await away(fixture, 'b')
  await publish(fixture, 4)
  expect(await hits(fixture)).toBe(0)
  await collect(fixture, 'b', 4)
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
