import { stat } from 'node:fs'
import { duplexPair } from 'node:stream'
import { setTimeout as pause } from 'node:timers/promises'
import { connectAsync } from 'mqtt'
import { generate } from 'mqtt-packet'
import { pino } from 'pino'
import { Registry } from 'prom-client'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { Appender } from '../../../ingest/append/batcher.ts'
import { DEFAULT_LIMITS } from '../../../ingest/limits.ts'
import { IngestMetrics } from '../../../ingest/metrics.ts'
import { Broker } from '../../../ingest/mqtt/broker.ts'
import { Epochs } from '../../../ingest/mqtt/session.ts'
import { HeldLog, openGuard, openIngest, pinged, publication, RawClient, WAIT } from '../fixture.ts'

const TOPIC = 'devices/truck-17/telemetry'

function burst(count: number, bytes = 10): Buffer {
  return Buffer.concat(Array.from({ length: count }, (_, i) => publication(TOPIC, Buffer.alloc(bytes, 'x'), 1, i + 1)))
}

function standStill(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms)
}

describe('flow', () => {
  it.each(['mqtt', 'ws'])(
    'a burst of 20,000 publishes by MQTT.js on one connection simply works over %s',
    async (scheme) => {
      const { log, url } = await openIngest()
      const client = await connectAsync(url.replace('mqtt', scheme), { clientId: 'truck-17', reconnectPeriod: 0 })
      onTestFinished(() => client.endAsync(true))
      await Promise.all(Array.from({ length: 20_000 }, (_, i) => client.publishAsync(TOPIC, `{"i":${i}}`, { qos: 1 })))
      expect(log.messages().map(([, value]) => value)).toEqual(Array.from({ length: 20_000 }, (_, i) => `{"i":${i}}`))
    },
  )

  it('takes no more of a connection than may be unacknowledged, and goes on when acks leave', async () => {
    const { ingest, log, metric } = await openIngest({ maxUnacked: 100 })
    const client = await RawClient.open(ingest.port)
    log.hold = true
    client.write(burst(5_000))
    await vi.waitFor(() => expect(log.heldMessages()).toBe(100), WAIT)
    const witness = await RawClient.open(ingest.port)
    await pinged(witness)
    expect(log.heldMessages()).toBe(100)
    expect(await metric('held_messages')).toBe(100)
    log.release()
    await vi.waitFor(() => expect(client.of('puback').length).toBe(5_000), WAIT)
    expect(client.ids('puback')).toEqual(Array.from({ length: 5_000 }, (_, i) => i + 1))
    expect(await metric('held_messages')).toBe(0)
    expect(await metric('held_bytes')).toBe(0)
  })

  it('takes no more bytes of all connections than the budget, and goes on when acks leave', async () => {
    const { ingest, log, metric } = await openIngest({ maxHeldBytes: 100_000 })
    const clients = await Promise.all(Array.from({ length: 5 }, () => RawClient.open(ingest.port)))
    log.hold = true
    for (const client of clients) client.write(burst(100, 1_000))
    await vi.waitFor(async () => expect(await metric('held_bytes')).toBeGreaterThanOrEqual(100_000), WAIT)
    const witness = await RawClient.open(ingest.port)
    await pinged(witness)
    expect(await metric('held_bytes')).toBeLessThan(102_000)
    expect(await metric('bound_hits_total', { bound: 'held bytes' })).toBe(1)
    log.release()
    for (const client of clients) await vi.waitFor(() => expect(client.of('puback').length).toBe(100), WAIT)
    expect(await metric('held_bytes')).toBe(0)
  })

  it('gives the budget back when connections are lost', async () => {
    const { ingest, log, metric } = await openIngest()
    const client = await RawClient.open(ingest.port)
    log.hold = true
    client.write(burst(50, 1_000))
    await vi.waitFor(() => expect(log.heldMessages()).toBe(50), WAIT)
    client.write(burst(50, 1_000))
    await vi.waitFor(async () => expect(await metric('held_messages')).toBe(100), WAIT)
    client.socket.destroy()
    await vi.waitFor(async () => expect(await metric('connections')).toBe(0), WAIT)
    log.release()
    await vi.waitFor(async () => expect(await metric('held_messages')).toBe(0), WAIT)
    expect(await metric('held_bytes')).toBe(0)
  })

  it('does not let the keepalive of a client run out whose messages it holds', async () => {
    const { ingest, log } = await openIngest()
    const client = await RawClient.open(ingest.port, { keepalive: 1 })
    log.hold = true
    client.publish(TOPIC, '1', 1, 1)
    await vi.waitFor(() => expect(log.heldMessages()).toBe(1), WAIT)
    // One with the same keepalive, and nothing held, is the clock.
    await (await RawClient.open(ingest.port, { keepalive: 1 })).end()
    expect(client.closed).toBe(false)
    log.release()
    await vi.waitFor(() => expect(client.ids('puback')).toEqual([1]), WAIT)
  })

  it('does not let the keepalive of a client run out while it stands still itself', async () => {
    const { ingest } = await openIngest()
    const client = await RawClient.open(ingest.port, { keepalive: 1 })
    // What comes after the sockets that are read at the time are the timers.
    client.socket.once('data', () => {
      client.send({ cmd: 'pingreq' })
      standStill(2_000)
    })
    client.send({ cmd: 'pingreq' })
    await vi.waitFor(() => expect(client.of('pingresp').length).toBe(2), WAIT)
    expect(client.closed).toBe(false)
    await client.end()
  })

  it('lets the keepalive of a dead client run out though it stands still again and again', async () => {
    const { ingest, metric } = await openIngest()
    await RawClient.open(ingest.port, { keepalive: 1 })
    const isClosed = async () => (await metric('closes_total', { reason: 'keepalive timeout' })) === 1
    for (let i = 0; i < 6 && !(await isClosed()); i++) {
      standStill(1_100)
      await pause(10)
    }
    expect(await isClosed()).toBe(true)
  })

  it('does not give up an append because it stood still itself', async () => {
    const { ingest, log } = await openIngest({ appendDeadlineMs: 2_000 })
    const client = await RawClient.open(ingest.port)
    log.hold = true
    client.publish(TOPIC, '1', 1, 1)
    await vi.waitFor(() => expect(log.heldMessages()).toBe(1), WAIT)
    // From within what is read, so that timers come before what is there next.
    stat('.', () => {
      standStill(2_500)
      setTimeout(() => log.release(), 10)
    })
    await vi.waitFor(() => expect(client.ids('puback')).toEqual([1]), WAIT)
    expect(client.closed).toBe(false)
  })

  it('cuts a subscriber that does not read, and publishers do not wait for it', async () => {
    const { ingest, log, metric } = await openIngest({ maxOutgoingBytes: 1024 * 1024 })
    const subscriber = await RawClient.open(ingest.port)
    subscriber.send({ cmd: 'subscribe', messageId: 1, subscriptions: [{ topic: '#', qos: 0 }] })
    await vi.waitFor(() => expect(subscriber.of('suback').length).toBe(1), WAIT)
    subscriber.socket.pause()
    const client = await RawClient.open(ingest.port)
    let sent = 0
    while ((await metric('closes_total', { reason: 'slow reader' })) === 0) {
      for (let i = 0; i < 10; i++) client.publish(TOPIC, Buffer.alloc(100_000), 1, ++sent % 65_535 || 1)
      await vi.waitFor(() => expect(client.of('puback').length).toBe(sent), WAIT)
      if (sent > 2_000) throw new Error('the subscriber was not cut')
    }
    expect(log.messages().length).toBe(sent)
  })

  it('cuts a subscriber that does not read in time', async () => {
    const { ingest, metric } = await openIngest({ drainTimeoutMs: 100, maxOutgoingBytes: 100 * 1024 * 1024 })
    const subscriber = await RawClient.open(ingest.port)
    subscriber.send({ cmd: 'subscribe', messageId: 1, subscriptions: [{ topic: '#', qos: 0 }] })
    await vi.waitFor(() => expect(subscriber.of('suback').length).toBe(1), WAIT)
    subscriber.socket.pause()
    const client = await RawClient.open(ingest.port)
    for (let id = 1; id <= 300; id++) client.publish(TOPIC, Buffer.alloc(100_000), 1, id)
    await vi.waitFor(async () => expect(await metric('closes_total', { reason: 'slow reader' })).toBe(1), WAIT)
    await pinged(client)
  })

  it('cuts a client that does not read its acks in time', async () => {
    const metrics = new IngestMetrics(new Registry())
    const limits = { ...DEFAULT_LIMITS, drainTimeoutMs: 100, stopTimeoutMs: 100 }
    const logger = pino({ level: 'silent' })
    const appender = new Appender(new HeldLog(), limits, metrics, logger)
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
    // Not a socket, of whose acks the system would keep megabytes.
    const [client, source] = duplexPair()
    broker.handle(source)
    client.write(generate({ cmd: 'connect', clientId: 'truck-17' }))
    for (let id = 1; id < 65_536; id++) client.write(publication(TOPIC, '1', 1, id))
    await vi.waitFor(
      () => expect([...metrics.closes.entries()].filter(([, count]) => count > 0)).toEqual([['slow reader', 1]]),
      WAIT,
    )
    expect(metrics.acknowledged[1]).toBeGreaterThan(1_000)
  })

  it('gathers what comes together into few appends', async () => {
    const { ingest, log } = await openIngest()
    const clients = await Promise.all(Array.from({ length: 20 }, () => RawClient.open(ingest.port)))
    for (const client of clients) client.write(burst(100))
    for (const client of clients) await vi.waitFor(() => expect(client.of('puback').length).toBe(100), WAIT)
    expect(log.messages().length).toBe(2_000)
    expect(log.begun).toBeLessThan(200)
  })

  it('keeps the order of one device over batches', async () => {
    const { ingest, log } = await openIngest({ maxBatchRecords: 7 })
    const client = await RawClient.open(ingest.port)
    client.write(
      Buffer.concat(
        Array.from({ length: 1_000 }, (_, i) => publication(TOPIC, String(i), (i % 3) as 0 | 1 | 2, i + 1)),
      ),
    )
    await vi.waitFor(() => expect(log.messages().length).toBe(1_000), WAIT)
    expect(log.messages().map(([, value]) => Number(value))).toEqual(Array.from({ length: 1_000 }, (_, i) => i))
  })
})
