import { Duplex, PassThrough } from 'node:stream'
import { generate } from 'mqtt-packet'
import { type Logger, pino } from 'pino'
import { Registry } from 'prom-client'
import { expect, it, onTestFinished, vi } from 'vitest'
import { Appender } from '../../../ingest/append/batcher.ts'
import { Connection } from '../../../ingest/connection/connection.ts'
import { Pressure } from '../../../ingest/connection/pressure.ts'
import { DEFAULT_LIMITS, type Limits } from '../../../ingest/limits.ts'
import { IngestMetrics } from '../../../ingest/metrics.ts'
import { Broker } from '../../../ingest/mqtt/broker.ts'
import { Epochs } from '../../../ingest/mqtt/session.ts'
import { HeldLog, openGuard, openIngest, publication, RawClient, WAIT } from '../fixture.ts'

const ID = 'truck-17'
const TOPIC = `devices/${ID}/telemetry`

it('a connection gives back what it took of messages that the broker has not looked at', () => {
  const metrics = new IngestMetrics(new Registry())
  const connection = new Connection(new PassThrough(), new Pressure(DEFAULT_LIMITS, metrics))
  connection.receive(generate({ cmd: 'connect', clientId: ID }))
  connection.answered()
  const messages = Array.from({ length: 10 }, (_, i) => publication(TOPIC, 'x'.repeat(100), 1, i + 1))
  connection.receive(Buffer.concat(messages))
  expect(metrics.held).toBe(10)
  expect(metrics.heldBytes).toBeGreaterThan(1_000)
  connection.destroy()
  expect([metrics.held, metrics.heldBytes]).toEqual([0, 0])
})

it.each([1, 2] as const)(
  'a message of QoS %s that the log did not take does not count as acknowledged',
  async (qos) => {
    const { ingest, log, metric } = await openIngest()
    const client = await RawClient.open(ingest.port)
    client.publish(TOPIC, '1', qos, 1)
    await vi.waitFor(() => expect(client.ids(qos === 1 ? 'puback' : 'pubrec')).toEqual([1]), WAIT)
    log.failing = new Error('disk full')
    for (let id = 2; id < 5; id++) client.publish(TOPIC, String(id), qos, id)
    await client.end()
    await vi.waitFor(async () => expect(await metric('held_messages')).toBe(0), WAIT)
    expect(await metric('acknowledged_total', { qos: String(qos) })).toBe(1)
  },
)

it('an ack whose connection is gone does not count as one that left', async () => {
  const { ingest, log, metric } = await openIngest()
  const client = await RawClient.open(ingest.port)
  log.hold = true
  for (let id = 1; id <= 5; id++) client.publish(TOPIC, String(id), 1, id)
  await vi.waitFor(async () => expect(await metric('held_messages')).toBe(5), WAIT)
  client.socket.destroy()
  await vi.waitFor(async () => expect(await metric('connections')).toBe(0), WAIT)
  log.release()
  await vi.waitFor(async () => expect(await metric('held_messages')).toBe(0), WAIT)
  expect(log.messages()).toHaveLength(5)
  expect(await metric('acknowledged_total', { qos: '1' })).toBe(0)
})

async function openBroker(log: HeldLog, logger: Logger, more: Partial<Limits> = {}): Promise<Broker> {
  const metrics = new IngestMetrics(new Registry())
  const limits = { ...DEFAULT_LIMITS, ...more }
  const appender = new Appender(log, limits, metrics, logger)
  const epochs = new Epochs(Date.now, Math.random)
  const broker = await Broker.open({
    limits,
    metrics,
    guard: await openGuard(),
    appender,
    epochs,
    logger,
    now: Date.now,
  })
  onTestFinished(() => broker.stop())
  return broker
}

/** The other end takes what it is sent, and says nothing. */
const mute = () => new Duplex({ read() {}, write: (_chunk, _encoding, done) => done() })

it('a stop says of how many devices the log took no end, under way or not begun', async () => {
  const lines: string[] = []
  const log = new HeldLog()
  const broker = await openBroker(log, pino({}, { write: (line) => lines.push(line) }), { stopTimeoutMs: 1 })
  const ids = Array.from({ length: 20 }, (_, i) => `d${i}`)
  for (const clientId of ids) broker.handle(mute()).receive(generate({ cmd: 'connect', clientId }))
  await vi.waitFor(() => expect(log.connections()).toHaveLength(ids.length), WAIT)
  log.faults.set(log.partition('d0'), new Error('down'))
  log.hold = true
  await broker.stop()
  const told = lines.filter((line) => line.includes('did not take the shutdown'))
  expect(told).toEqual([expect.stringContaining(`"devices":${ids.length}`)])
})

it.each([
  { last: 'DISCONNECT', sent: generate({ cmd: 'disconnect' }), end: 'client disconnect', wills: 0 },
  { last: 'PINGREQ', sent: generate({ cmd: 'pingreq' }), end: 'connection lost', wills: 1 },
])('a connection lost before the broker came to read $last is over as: $end', async (one) => {
  const log = new HeldLog()
  const broker = await openBroker(log, pino({ level: 'silent' }))
  const connection = broker.handle(mute())
  const answered = vi.spyOn(connection, 'answered')
  const will = { topic: TOPIC, payload: Buffer.from('"gone"'), qos: 1 as const, retain: false }
  connection.receive(generate({ cmd: 'connect', clientId: ID, will }))
  // Before CONNACK has left nothing passes, and the log may have the device's coming earlier.
  await vi.waitFor(() => expect(answered).toHaveBeenCalled(), WAIT)
  await vi.waitFor(() => expect(log.story(ID)).toEqual(['online: connected']), WAIT)
  connection.receive(one.sent)
  connection.destroy()
  await vi.waitFor(() => expect(log.story(ID)).toEqual(['online: connected', `offline: ${one.end}`]), WAIT)
  expect(log.messages()).toHaveLength(one.wills)
})

it('a stop lets acks leave that wait for those before them', async () => {
  const { ingest, log } = await openIngest()
  const client = await RawClient.open(ingest.port)
  log.hold = true
  const ids = Array.from({ length: 100 }, (_, i) => i + 1)
  client.write(Buffer.concat(ids.map((id) => publication('elsewhere', '1', id % 2 === 0 ? 1 : 2, id))))
  await vi.waitFor(() => expect(log.held('dead-letters')).toBe(100), WAIT)
  const stopped = ingest[Symbol.asyncDispose]()
  log.release()
  await stopped
  await client.end()
  expect(client.of('puback').length + client.of('pubrec').length).toBe(100)
})
