import { describe, expect, it, vi } from 'vitest'
import { HeldLog, openIngest, pinged, publication, RawClient, turns, WAIT } from '../fixture.ts'

const TOPIC = 'devices/truck-17/telemetry'
const TRUCK = { clientId: 'truck-17', clean: false }

describe('acknowledgement', () => {
  it('holds PUBACK until the log has the record', async () => {
    const { ingest, log } = await openIngest()
    const client = await RawClient.open(ingest.port)
    log.hold = true
    client.publish(TOPIC, '{"t":1}', 1, 7)
    await vi.waitFor(() => expect(log.held('telemetry')).toBeGreaterThan(0), WAIT)
    await turns()
    expect(client.ids('puback')).toEqual([])
    log.release()
    await vi.waitFor(() => expect(client.ids('puback')).toEqual([7]), WAIT)
    expect(log.messages()).toEqual([['truck-17', '{"t":1}']])
  })

  it('holds PUBREC until the log has the record', async () => {
    const { ingest, log } = await openIngest()
    const client = await RawClient.open(ingest.port)
    log.hold = true
    client.publish(TOPIC, '1', 2, 9)
    await vi.waitFor(() => expect(log.held('telemetry')).toBeGreaterThan(0), WAIT)
    await turns()
    expect(client.ids('pubrec')).toEqual([])
    log.release()
    await vi.waitFor(() => expect(client.ids('pubrec')).toEqual([9]), WAIT)
    client.send({ cmd: 'pubrel', messageId: 9 })
    await vi.waitFor(() => expect(client.ids('pubcomp')).toEqual([9]), WAIT)
  })

  it('acknowledges in the order of receipt, though appends end in another and topics mix', async () => {
    const { ingest, log } = await openIngest({ maxBatchRecords: 3, maxAppends: 50 })
    const client = await RawClient.open(ingest.port)
    log.hold = true
    const ids = Array.from({ length: 60 }, (_, i) => i + 1)
    // Every third message is for the dead letters, every seventh QoS 2.
    const sent = ids.map((id) => publication(id % 3 === 0 ? 'elsewhere' : TOPIC, String(id), id % 7 === 0 ? 2 : 1, id))
    client.write(Buffer.concat(sent))
    await vi.waitFor(() => expect(log.held('dead-letters')).toBe(20), WAIT)
    await vi.waitFor(() => expect(log.held('telemetry')).toBeGreaterThanOrEqual(40), WAIT)
    expect(log.appends.length).toBeGreaterThan(20)
    const first = log.appends.shift()
    for (const append of log.appends.splice(0).toReversed()) append.resolve()
    await turns()
    expect(client.received.filter(({ cmd }) => cmd === 'puback' || cmd === 'pubrec')).toEqual([])
    first?.resolve()
    await vi.waitFor(() => expect(client.of('puback').length + client.of('pubrec').length).toBe(60), WAIT)
    const acks = client.received.flatMap(({ cmd, messageId }) => (cmd === 'connack' ? [] : [[cmd, messageId]]))
    expect(acks).toEqual(ids.map((id) => [id % 7 === 0 ? 'pubrec' : 'puback', id]))
  })

  it('closes without an ack when an append fails, and tells others nothing', async () => {
    const { ingest, log, metric } = await openIngest()
    const client = await RawClient.open(ingest.port, {
      will: { topic: TOPIC, payload: Buffer.from('"will"'), qos: 1, retain: false },
    })
    const other = await RawClient.open(ingest.port)
    log.hold = true
    client.publish(TOPIC, '1', 1, 1)
    client.publish(TOPIC, '2', 2, 2)
    await vi.waitFor(() => expect(log.held('telemetry')).toBeGreaterThan(0), WAIT)
    for (const append of log.appends.splice(0)) append.reject(new Error('disk full'))
    log.hold = false
    await client.end()
    expect(client.of('puback')).toEqual([])
    expect(client.of('pubrec')).toEqual([])
    await pinged(other)
    other.publish('devices/other/telemetry', '1', 1, 1)
    await vi.waitFor(() => expect(other.ids('puback')).toEqual([1]), WAIT)
    expect(log.messages()).toEqual([['other', '1']])
    await vi.waitFor(async () => expect(await metric('closes_total', { reason: 'append failed' })).toBe(1), WAIT)
  })

  it('appends nothing that a client sent after what the log did not take: it will send all of it again, in order', async () => {
    const { ingest, log } = await openIngest({ maxBatchRecords: 1, maxAppends: 1 })
    const client = await RawClient.open(ingest.port)
    log.hold = true
    client.write(Buffer.concat([1, 2, 3].map((id) => publication(TOPIC, String(id), 1, id))))
    await vi.waitFor(() => expect(log.held('telemetry')).toBe(1), WAIT)
    log.hold = false
    log.appends.shift()?.reject(new Error('Kafka hangs'))
    await client.end()
    await turns()
    expect(client.of('puback')).toEqual([])
    expect(log.messages()).toEqual([])
  })

  it('appends nothing of it either while the client is not told, as what it sent before is still under way', async () => {
    const { ingest, log, metric } = await openIngest({ maxBatchRecords: 1, maxAppends: 2 })
    const client = await RawClient.open(ingest.port)
    log.hold = true
    client.write(Buffer.concat([1, 2].map((id) => publication(TOPIC, String(id), 1, id))))
    await vi.waitFor(() => expect(log.held('telemetry')).toBe(2), WAIT)
    log.hold = false
    log.appends.pop()?.reject(new Error('Kafka hangs'))
    await turns()
    client.publish(TOPIC, '3', 1, 3)
    await vi.waitFor(async () => expect(await metric('failed_appends_total', { reason: 'Error' })).toBe(2), WAIT)
    log.release()
    await client.end()
    expect(client.ids('puback')).toEqual([1])
    expect(log.messages()).toEqual([['truck-17', '1']])
  })

  it('closes without an ack when the log does not answer in time, and refuses sessions until it does', async () => {
    const { ingest, log } = await openIngest({ appendDeadlineMs: 50 })
    const device = { clientId: 'truck-17' }
    const client = await RawClient.open(ingest.port)
    log.hold = true
    client.publish(TOPIC, '1', 1, 1)
    await client.end()
    expect(client.of('puback')).toEqual([])
    expect((await new RawClient(ingest.port).connect(device)).returnCode).toBe(3)
    log.release()
    await turns()
    expect((await new RawClient(ingest.port).connect(device)).returnCode).toBe(0)
  })

  it('refuses CONNECT with "server unavailable" while the log has a fault', async () => {
    const { ingest, log, metric } = await openIngest()
    log.fault = new Error('disk full')
    const refused = new RawClient(ingest.port)
    expect((await refused.connect({ clientId: 'truck-17' })).returnCode).toBe(3)
    await refused.end()
    await vi.waitFor(async () => expect(await metric('refusals_total', { reason: 'server unavailable' })).toBe(1), WAIT)
    log.fault = undefined
    expect((await new RawClient(ingest.port).connect()).returnCode).toBe(0)
    expect(log.story('truck-17')).toEqual([])
  })

  it('takes QoS 0 without waiting, drops beyond the buffer, and counts it', async () => {
    const { ingest, log, metric } = await openIngest({ maxQos0Bytes: 10 * (64 + 2 + TOPIC.length + 100) })
    const client = await RawClient.open(ingest.port)
    log.hold = true
    client.write(Buffer.concat(Array.from({ length: 30 }, () => publication(TOPIC, Buffer.alloc(100)))))
    await pinged(client)
    expect(await metric('dropped_qos0_total', { reason: 'buffer full' })).toBe(20)
    // `online` is said after the first message and after the fourth.
    await vi.waitFor(() => expect(log.held('telemetry')).toBe(10 + 2), WAIT)
    log.release()
    await turns()
    client.publish(TOPIC, '1')
    await vi.waitFor(() => expect(log.messages().length).toBe(11), WAIT)
  })

  it('answers what came with CONNECT, more than the broker queues', async () => {
    const { ingest } = await openIngest()
    const client = new RawClient(ingest.port)
    const publications = Array.from({ length: 500 }, (_, i) => publication(TOPIC, '1', 1, i + 1))
    client.socket.cork()
    const connected = client.connect({ clientId: 'eager' })
    client.write(Buffer.concat(publications))
    client.socket.uncork()
    expect((await connected).returnCode).toBe(0)
    await vi.waitFor(() => expect(client.of('puback').length).toBe(500), WAIT)
  })

  it('takes what was sent before an orderly close', async () => {
    const { ingest, log } = await openIngest()
    const client = await RawClient.open(ingest.port)
    client.socket.end(Buffer.concat(Array.from({ length: 3_000 }, (_, i) => publication(TOPIC, String(i)))))
    await vi.waitFor(() => expect(log.messages().length).toBe(3_000), WAIT)
  })
})

async function recorded(client: RawClient, ids: number[]): Promise<void> {
  await vi.waitFor(() => expect(client.ids('pubrec')).toEqual(ids), WAIT)
}

/** A persistent session, which sends its message again on a new connection while the append of it is held. */
async function resumed(port: number, log: HeldLog): Promise<RawClient> {
  const first = await RawClient.open(port, TRUCK)
  log.hold = true
  first.publish(TOPIC, '1', 2, 5)
  await vi.waitFor(() => expect(log.heldMessages()).toBe(1), WAIT)
  first.socket.destroy()
  const second = await RawClient.open(port, TRUCK)
  second.publish(TOPIC, '1', 2, 5, { dup: true })
  await pinged(second)
  return second
}

describe('QoS 2', () => {
  it('appends a retransmission only once, before and after PUBREC, until PUBREL', async () => {
    const { ingest, log } = await openIngest()
    const client = await RawClient.open(ingest.port)
    log.hold = true
    client.publish(TOPIC, '1', 2, 5)
    client.publish(TOPIC, '1', 2, 5, { dup: true })
    await vi.waitFor(() => expect(log.held('telemetry')).toBeGreaterThan(0), WAIT)
    log.release()
    await recorded(client, [5, 5])
    client.publish(TOPIC, '1', 2, 5, { dup: true })
    await recorded(client, [5, 5, 5])
    expect(log.messages()).toEqual([['truck-17', '1']])
    client.send({ cmd: 'pubrel', messageId: 5 })
    await vi.waitFor(() => expect(client.ids('pubcomp')).toEqual([5]), WAIT)
    client.publish(TOPIC, '2', 2, 5)
    await recorded(client, [5, 5, 5, 5])
    expect(log.messages()).toEqual([
      ['truck-17', '1'],
      ['truck-17', '2'],
    ])
  })

  it('appends once when a persistent session resumes while the first append is under way', async () => {
    const { ingest, log } = await openIngest()
    const second = await resumed(ingest.port, log)
    log.release()
    await recorded(second, [5])
    second.send({ cmd: 'pubrel', messageId: 5 })
    await vi.waitFor(() => expect(second.ids('pubcomp')).toEqual([5]), WAIT)
    expect(log.messages()).toEqual([['truck-17', '1']])
  })

  it('does not acknowledge a retransmission of what the log did not take', async () => {
    const { ingest, log } = await openIngest()
    const second = await resumed(ingest.port, log)
    for (const append of log.appends.splice(0)) append.reject(new Error('disk full'))
    log.release()
    await second.end()
    expect(second.of('pubrec')).toEqual([])
    const third = await RawClient.open(ingest.port, TRUCK)
    third.publish(TOPIC, '1', 2, 5, { dup: true })
    await recorded(third, [5])
    expect(log.messages()).toEqual([['truck-17', '1']])
  })

  it('sends PUBRECs in order when new messages and retransmissions mix', async () => {
    const { ingest, log } = await openIngest()
    const client = await RawClient.open(ingest.port)
    client.publish(TOPIC, '1', 2, 1)
    client.publish(TOPIC, '3', 2, 3)
    await recorded(client, [1, 3])
    const dup = { dup: true }
    client.write(Buffer.concat([1, 2, 3, 4].map((id) => publication(TOPIC, String(id), 2, id, dup))))
    await recorded(client, [1, 3, 1, 2, 3, 4])
    expect(log.messages().map(([, value]) => value)).toEqual(['1', '3', '2', '4'])
  })

  it('forwards each message once to subscribers', async () => {
    const { ingest } = await openIngest()
    const subscriber = await RawClient.open(ingest.port)
    subscriber.send({ cmd: 'subscribe', messageId: 1, subscriptions: [{ topic: '#', qos: 0 }] })
    await vi.waitFor(() => expect(subscriber.of('suback').length).toBe(1), WAIT)
    const client = await RawClient.open(ingest.port)
    client.publish(TOPIC, '1', 2, 1)
    client.publish(TOPIC, '1', 2, 1, { dup: true })
    client.publish('elsewhere', '2', 2, 2)
    await recorded(client, [1, 1, 2])
    await vi.waitFor(() => expect(subscriber.of('publish').length).toBeGreaterThanOrEqual(2), WAIT)
    await pinged(subscriber)
    expect(subscriber.of('publish').map((packet) => 'payload' in packet && String(packet.payload))).toEqual(['1', '2'])
  })

  it('tells a client that its session is there while one waits for PUBREL: it would begin its ids anew [MQTT-3.2.2-2]', async () => {
    const { ingest, log } = await openIngest()
    const first = await RawClient.open(ingest.port, TRUCK)
    first.publish(TOPIC, '1', 2, 1)
    await recorded(first, [1])
    first.socket.destroy()
    const second = new RawClient(ingest.port)
    expect((await second.connect(TRUCK)).sessionPresent).toBe(true)
    // DUP should be set, and is not always.
    second.publish(TOPIC, '1', 2, 1)
    await recorded(second, [1])
    second.send({ cmd: 'pubrel', messageId: 1 })
    await vi.waitFor(() => expect(second.ids('pubcomp')).toEqual([1]), WAIT)
    second.socket.destroy()
    const third = new RawClient(ingest.port)
    expect((await third.connect(TRUCK)).sessionPresent).toBe(false)
    third.publish(TOPIC, '2', 2, 1)
    await recorded(third, [1])
    expect(log.messages().map(([, value]) => value)).toEqual(['1', '2'])
  })

  it('takes none of a clean session for one of the persistent session that takes it over', async () => {
    const { ingest, log } = await openIngest()
    const clean = await RawClient.open(ingest.port, { clientId: 'truck-17' })
    clean.send({ cmd: 'subscribe', messageId: 1, subscriptions: [{ topic: 'home/#', qos: 0 }] })
    clean.publish(TOPIC, '1', 2, 1)
    await recorded(clean, [1])
    const persistent = new RawClient(ingest.port)
    // In one piece: the message is there before the connection that is taken over has ended.
    persistent.socket.cork()
    const connected = persistent.connect(TRUCK)
    persistent.publish(TOPIC, '2', 2, 1)
    persistent.socket.uncork()
    expect((await connected).sessionPresent).toBe(false)
    await recorded(persistent, [1])
    await clean.end()
    persistent.publish(TOPIC, '2', 2, 1, { dup: true })
    await recorded(persistent, [1, 1])
    expect(log.messages().map(([, value]) => value)).toEqual(['1', '2'])
  })

  it('takes none of a clean session for one of the persistent session before it, which is over', async () => {
    const { ingest, log, metric } = await openIngest({ maxUnreleasedTotal: 2 })
    const before = await RawClient.open(ingest.port, TRUCK)
    before.publish(TOPIC, '1', 2, 1)
    await recorded(before, [1])
    before.socket.destroy()
    await vi.waitFor(async () => expect(await metric('connections')).toBe(0), WAIT)
    const clean = await RawClient.open(ingest.port, { clientId: 'truck-17' })
    clean.publish(TOPIC, '2', 2, 1)
    await recorded(clean, [1])
    // There is room for one more, and nobody is away.
    const other = await RawClient.open(ingest.port)
    for (const id of [1, 2]) other.publish('devices/other/telemetry', '1', 2, id)
    await other.end()
    expect(await metric('bound_hits_total', { bound: 'sessions away' })).toBe(0)
    clean.publish(TOPIC, '2', 2, 1, { dup: true })
    await recorded(clean, [1, 1])
    expect(log.messages().filter(([device]) => device === 'truck-17').length).toBe(2)
  })

  it('leaves nothing behind of a clean session', async () => {
    const log = new HeldLog()
    const { ingest } = await openIngest({}, log)
    for (let i = 0; i < 2; i++) {
      const client = await RawClient.open(ingest.port, { clientId: 'truck-17' })
      client.publish(TOPIC, '1', 2, 5)
      await recorded(client, [5])
      client.socket.destroy()
      await vi.waitFor(
        () => expect(log.story('truck-17').filter((said) => said.startsWith('offline')).length).toBe(i + 1),
        WAIT,
      )
    }
    expect(log.messages().length).toBe(2)
  })
})
