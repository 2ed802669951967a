import { array, assert, asyncProperty, boolean, constantFrom, nat, oneof, tuple, uint8Array } from 'fast-check'
import { generate } from 'mqtt-packet'
import { describe, expect, it, vi } from 'vitest'
import { openIngest, pinged, publication, RawClient, unharmed, WAIT } from '../fixture.ts'

const TOPIC = 'devices/truck-17/telemetry'

describe('messages the device cannot mend', () => {
  it.each([
    ['a topic outside the tree', 'elsewhere/truck-17', 'bad-topic', null],
    ['a topic that begins with $', '$share/x', 'reserved-topic', null],
    ['a topic of the broker itself', '$SYS/broker/clients', 'reserved-topic', null],
    ['a topic of more levels than can be routed', '/'.repeat(100), 'bad-topic', null],
    ['a device id outside the grammar', 'devices/truck 17/telemetry', 'bad-device-id', null],
  ])('%s: acknowledged, and to the dead letters', async (_name, topic, reason, key) => {
    const fixture = await openIngest()
    const { ingest, log, metric } = fixture
    const client = await RawClient.open(ingest.port)
    log.hold = true
    client.publish(topic, '{"t":1}', 1, 1)
    client.publish(topic, '{"t":2}', 2, 2)
    await vi.waitFor(() => expect(log.held('dead-letters')).toBe(2), WAIT)
    expect(client.of('puback')).toEqual([])
    log.release()
    await vi.waitFor(() => expect(client.ids('pubrec')).toEqual([2]), WAIT)
    expect(client.ids('puback')).toEqual([1])
    client.publish(topic, '{"t":0}')
    await vi.waitFor(() => expect(log.letters().length).toBe(3), WAIT)
    const [letter] = log.letters()
    expect(letter).toMatchObject({ key, headers: { reason, topic } })
    expect(log.letters().map(({ value }) => String(value))).toEqual(['{"t":1}', '{"t":2}', '{"t":0}'])
    expect(log.messages()).toEqual([])
    expect(await metric('dead_letters_total', { reason })).toBe(3)
  })

  it('a payload over 256 KiB: acknowledged, and to the dead letters with its bytes', async () => {
    const { ingest, log } = await openIngest()
    const client = await RawClient.open(ingest.port)
    const payload = Buffer.alloc(256 * 1024 + 1, 'x')
    client.publish(TOPIC, payload.subarray(1), 1, 1)
    client.publish(TOPIC, payload, 1, 2)
    await vi.waitFor(() => expect(client.ids('puback')).toEqual([1, 2]), WAIT)
    expect(log.messages().length).toBe(1)
    expect(log.letters()).toMatchObject([{ key: 'truck-17', headers: { reason: 'payload-too-large', topic: TOPIC } }])
    // Not toEqual, which takes seconds for so many bytes.
    expect(payload.equals(log.letters()[0]?.value ?? Buffer.alloc(0))).toBe(true)
  })

  it('what is not JSON goes to the telemetry as it is: the processor judges it', async () => {
    const { ingest, log } = await openIngest()
    const client = await RawClient.open(ingest.port)
    const bytes = Buffer.from([0xff, 0x00, 0x7b])
    client.publish(TOPIC, bytes, 1, 1)
    client.publish(`${TOPIC}/temperature`, '21.5', 1, 2)
    await vi.waitFor(() => expect(client.ids('puback')).toEqual([1, 2]), WAIT)
    const records = log.durable.map(({ record }) => record).filter(({ headers }) => headers?.kind === undefined)
    expect(records[0]?.value).toEqual(bytes)
    expect(records[1]).toMatchObject({ key: 'truck-17', headers: { metric: 'temperature' } })
    expect(Math.abs(Number(records[0]?.timestamp) - Date.now())).toBeLessThan(60_000)
  })
})

/** A CONNECT with a will, and these bits of QoS in its flags. */
function connectWithWill(topic: string, flags: number): Buffer {
  const packet = generate({
    cmd: 'connect',
    clientId: 'x',
    will: { topic, payload: Buffer.from('x'), qos: 1, retain: false },
  })
  packet[9] = ((packet[9] as number) & ~0x18) | flags
  return packet
}

function subscribing(topic: string): Buffer {
  return generate({ cmd: 'subscribe', messageId: 1, subscriptions: [{ topic, qos: 0 }] })
}

/** With a byte that is never in UTF-8 for each `~`. */
function illFormed(packet: Buffer): Buffer {
  return packet.map((byte) => (byte === 0x7e ? 0xff : byte)) as Buffer
}

/** A SUBSCRIBE or UNSUBSCRIBE of so many filters. */
function listed(cmd: 'subscribe' | 'unsubscribe', count: number): Buffer {
  const filters = Array.from({ length: count }, (_, i) => `f${i}`)
  if (cmd === 'unsubscribe') return generate({ cmd, messageId: 1, unsubscriptions: filters })
  return generate({ cmd, messageId: 1, subscriptions: filters.map((topic) => ({ topic, qos: 0 })) })
}

describe('connections that are closed', () => {
  const connected: [string, Buffer, string][] = [
    ['a topic with a wildcard', publication('devices/+/telemetry', '1', 1, 1), 'malformed packet'],
    ['a topic with U+0000', publication('a\u0000b', '1', 1, 1), 'malformed packet'],
    ['a metric with U+0000', publication('devices/d1/telemetry/a\u0000b', '1', 1, 1), 'malformed packet'],
    ['a topic that is no UTF-8', Buffer.from([0x32, 7, 0, 2, 0x61, 0xff, 0, 1, 0x31]), 'malformed packet'],
    ['QoS 3', Buffer.from([0x36, 6, 0, 1, 0x61, 0, 1, 0x31]), 'malformed packet'],
    ['a topic longer than its packet', Buffer.from([0x30, 3, 0, 9, 0x61]), 'malformed packet'],
    ['a length without end', Buffer.from([0x30, 0xff, 0xff, 0xff, 0xff]), 'malformed packet'],
    ['a second CONNECT', generate({ cmd: 'connect', clientId: 'x' }), 'malformed packet'],
    ['a filter with a wildcard inside', subscribing('a#/b'), 'malformed packet'],
    ['a filter with U+0000', subscribing('a\u0000b'), 'malformed packet'],
    [
      'a filter with U+0000 in an UNSUBSCRIBE',
      generate({ cmd: 'unsubscribe', messageId: 1, unsubscriptions: ['a\u0000b'] }),
      'malformed packet',
    ],
    ['a filter that is no UTF-8', illFormed(subscribing('a~b')), 'malformed packet'],
    ['over 1,000 filters in a SUBSCRIBE', listed('subscribe', 1_001), 'too many filters'],
    ['over 1,000 filters in an UNSUBSCRIBE', listed('unsubscribe', 1_001), 'too many filters'],
    ['an announced packet of 256 MB', Buffer.from([0x30, 0xff, 0xff, 0xff, 0x7f, 0, 1]), 'oversized packet'],
    ['a packet one byte too long', publication('a', Buffer.alloc(1_000_001 - 5), 1, 1), 'oversized packet'],
  ]
  it.each(connected)('%s', async (_name, bytes, reason) => {
    const fixture = await openIngest()
    const witness = await RawClient.open(fixture.ingest.port)
    const client = await RawClient.open(fixture.ingest.port)
    client.write(bytes)
    await client.end()
    expect(client.of('puback').length + client.of('pubrec').length).toBe(0)
    await vi.waitFor(async () => expect(await fixture.metric('closes_total', { reason })).toBe(1), WAIT)
    await unharmed(fixture, witness)
  })

  it.each([
    ['something other than CONNECT', generate({ cmd: 'pingreq' })],
    ['a will of QoS 3', connectWithWill('a', 0x18)],
    ['a will topic with a wildcard', connectWithWill('a/#', 0x08)],
    ['a will topic with U+0000', connectWithWill('a\u0000b', 0x08)],
    ['a will topic that is no UTF-8', illFormed(connectWithWill('a~b', 0x08))],
    ['a client id with U+0000', generate({ cmd: 'connect', clientId: 'a\u0000b' })],
    ['a user name that is no UTF-8', illFormed(generate({ cmd: 'connect', clientId: 'x', username: 'a~b' }))],
    ['another protocol', Buffer.from('\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03')],
    [
      'a password without a user name',
      Buffer.from([0x10, 16, 0, 4, 0x4d, 0x51, 0x54, 0x54, 4, 0x42, 0, 60, 0, 1, 0x78, 0, 1, 0x70]),
    ],
  ])('a connection that begins with %s', async (_name, bytes) => {
    const fixture = await openIngest()
    const witness = await RawClient.open(fixture.ingest.port)
    const client = new RawClient(fixture.ingest.port)
    client.write(bytes)
    await client.end()
    expect(client.received).toEqual([])
    await unharmed(fixture, witness)
  })

  it('MQTT 5, and a persistent session without an id, by CONNACK', async () => {
    const { ingest } = await openIngest()
    const five = new RawClient(ingest.port)
    five.write(generate({ cmd: 'connect', clientId: 'x', protocolVersion: 5 }))
    await five.end()
    expect(five.received).toMatchObject([{ cmd: 'connack', returnCode: 1 }])
    const nameless = new RawClient(ingest.port)
    // mqtt-packet will not write one.
    nameless.write(Buffer.from([0x10, 12, 0, 4, 0x4d, 0x51, 0x54, 0x54, 4, 0, 0, 60, 0, 0]))
    await nameless.end()
    expect(nameless.received).toMatchObject([{ cmd: 'connack', returnCode: 2 }])
  })

  it('a client id beyond the bound, by CONNACK', async () => {
    const { ingest, metric } = await openIngest()
    await RawClient.open(ingest.port, { clientId: 'x'.repeat(512) })
    const client = new RawClient(ingest.port)
    client.write(generate({ cmd: 'connect', clientId: 'x'.repeat(513) }))
    await client.end()
    expect(client.received).toMatchObject([{ cmd: 'connack', returnCode: 2 }])
    expect(await metric('bound_hits_total', { bound: 'client id' })).toBe(1)
  })

  it('the largest packet passes', async () => {
    const { ingest } = await openIngest()
    const client = await RawClient.open(ingest.port)
    client.publish('a', Buffer.alloc(1_000_000 - 5), 1, 1)
    await vi.waitFor(() => expect(client.ids('puback')).toEqual([1]), WAIT)
  })

  it('too many QoS 2 messages without PUBREL', async () => {
    const fixture = await openIngest({ maxUnreleased: 20 })
    const witness = await RawClient.open(fixture.ingest.port)
    const client = await RawClient.open(fixture.ingest.port)
    for (let id = 1; id <= 20; id++) client.publish(TOPIC, '1', 2, id)
    await vi.waitFor(() => expect(client.of('pubrec').length).toBe(20), WAIT)
    client.publish(TOPIC, '1', 2, 21)
    await client.end()
    await vi.waitFor(
      async () => expect(await fixture.metric('closes_total', { reason: 'too many in flight' })).toBe(1),
      WAIT,
    )
    await unharmed(fixture, witness)
  })

  it('too many QoS 2 messages without PUBREL in all sessions', async () => {
    const fixture = await openIngest({ maxUnreleasedTotal: 3 })
    const client = await RawClient.open(fixture.ingest.port)
    for (let id = 1; id <= 3; id++) client.publish(TOPIC, '1', 2, id)
    await vi.waitFor(() => expect(client.of('pubrec').length).toBe(3), WAIT)
    const other = await RawClient.open(fixture.ingest.port)
    other.publish(TOPIC, '1', 2, 1)
    await other.end()
    await unharmed(fixture, client)
  })

  it('one that never sends CONNECT, or sends nothing at all', async () => {
    const { ingest } = await openIngest({ connectTimeoutMs: 50 })
    const silent = new RawClient(ingest.port)
    const slow = new RawClient(ingest.port)
    slow.write(Buffer.from([0x10]))
    await Promise.all([silent.end(), slow.end()])
  })

  it('begun packets that never end, when all together are too many', async () => {
    const fixture = await openIngest({ maxIncompleteBytes: 100_000 })
    const client = await RawClient.open(fixture.ingest.port)
    const witness = await RawClient.open(fixture.ingest.port)
    client.write(publication('a', Buffer.alloc(60_000), 1, 1).subarray(0, 59_000))
    await pinged(witness)
    const other = await RawClient.open(fixture.ingest.port)
    const whole = publication('a', Buffer.alloc(60_000), 1, 1)
    other.write(whole.subarray(0, 59_000))
    await client.end()
    other.write(whole.subarray(59_000))
    await vi.waitFor(() => expect(other.ids('puback')).toEqual([1]), WAIT)
    expect(await fixture.metric('closes_total', { reason: 'too many incomplete packets' })).toBe(1)
    await unharmed(fixture, witness)
  })

  it('nobody, for the begun messages of others that never end', async () => {
    const fixture = await openIngest({ maxHeldBytes: 100_000 })
    const witness = await RawClient.open(fixture.ingest.port)
    for (let i = 0; i < 5; i++) {
      const client = await RawClient.open(fixture.ingest.port)
      client.write(publication('a', Buffer.alloc(60_000), 1, 1).subarray(0, 100))
      await pinged(witness)
    }
    await unharmed(fixture, witness)
  })

  it('a filter beyond the bound, by SUBACK', async () => {
    const { ingest } = await openIngest({ maxFilterLength: 5 })
    const client = await RawClient.open(ingest.port)
    const subscriptions = ['12345', '123456'].map((topic) => ({ topic, qos: 1 as const }))
    client.send({ cmd: 'subscribe', messageId: 1, subscriptions })
    await vi.waitFor(() => expect(client.of('suback')).toMatchObject([{ granted: [1, 128] }]), WAIT)
  })

  it('a filter of more levels than can be routed, by SUBACK; UNSUBSCRIBE of it, and messages to such topics, do no harm', async () => {
    const fixture = await openIngest()
    const { ingest } = fixture
    const witness = await RawClient.open(ingest.port)
    for (const clean of [true, false]) {
      const client = await RawClient.open(ingest.port, { clientId: `s-${clean}`, clean })
      const subscriptions = ['/'.repeat(15), '/'.repeat(100), '#'].map((topic) => ({ topic, qos: 1 as const }))
      client.send({ cmd: 'subscribe', messageId: 1, subscriptions })
      await vi.waitFor(() => expect(client.of('suback')).toMatchObject([{ granted: [1, 128, 1] }]), WAIT)
      client.send({ cmd: 'unsubscribe', messageId: 2, unsubscriptions: ['/'.repeat(100)] })
      await vi.waitFor(() => expect(client.ids('unsuback')).toEqual([2]), WAIT)
      client.publish('/'.repeat(100), '1', 1, 1, { retain: true })
      await vi.waitFor(() => expect(client.ids('puback')).toEqual([1]), WAIT)
      await unharmed(fixture, witness)
    }
  })

  it('subscriptions beyond the bound, by SUBACK', async () => {
    const { ingest, metric } = await openIngest({ maxSubscriptionLevels: 6 })
    for (const clean of [true, false]) {
      const client = await RawClient.open(ingest.port, { clientId: `s-${clean}`, clean })
      const subscriptions = Array.from({ length: 5 }, (_, i) => ({ topic: `t/${i}`, qos: 1 as const }))
      client.send({ cmd: 'subscribe', messageId: 1, subscriptions })
      await vi.waitFor(() => expect(client.of('suback')).toMatchObject([{ granted: [1, 1, 1, 128, 128] }]), WAIT)
    }
    expect(await metric('bound_hits_total', { bound: 'subscriptions' })).toBe(4)
  })
})

describe('garbage', () => {
  it('closes its connection at most', async () => {
    const fixture = await openIngest()
    const { ingest } = fixture
    const witness = await RawClient.open(ingest.port)
    const heads = [0x10, 0x20, 0x30, 0x31, 0x32, 0x34, 0x3d, 0x40, 0x50, 0x62, 0x70, 0x82, 0xa2, 0xc0, 0xe0, 0xf0]
    const frame = tuple(constantFrom(...heads), uint8Array({ maxLength: 60 })).map(([head, body]) =>
      Buffer.from([head, body.length, ...body]),
    )
    const mangled = tuple(nat(40), nat(255)).map(([at, byte]) => {
      const bytes = generate({
        cmd: 'connect',
        clientId: 'fuzz',
        will: { topic: 'w', payload: Buffer.from('w'), qos: 1, retain: true },
      })
      bytes[at % bytes.length] = byte
      return bytes
    })
    const bytes = oneof(
      uint8Array({ minLength: 1, maxLength: 200 }).map((b) => Buffer.from(b)),
      frame,
      mangled,
    )
    await assert(
      asyncProperty(array(bytes, { minLength: 1, maxLength: 12 }), boolean(), async (chunks, connected) => {
        const client = new RawClient(ingest.port)
        if (connected) client.send({ cmd: 'connect', clientId: 'fuzz' })
        for (const chunk of chunks) client.write(chunk)
        client.socket.end()
        client.socket.resume()
        await client.end()
      }),
      { numRuns: 400 },
    )
    await unharmed(fixture, witness)
  })
})
