import { connect, type IClientOptions, type MqttClient } from 'mqtt'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { deliveries, openIngest, pinged, RawClient, subscribe, WAIT } from '../fixture.ts'

interface Subscriber {
  readonly client: MqttClient
  readonly messages: [topic: string, payload: string, retained: boolean][]
}

/** Listens before it connects: what waited for a session may come in one piece with CONNACK. */
async function connected(url: string, options: IClientOptions = {}): Promise<Subscriber> {
  const client = connect(url, { reconnectPeriod: 0, ...options })
  const messages: Subscriber['messages'] = []
  client.on('message', (topic, payload, packet) => messages.push([topic, payload.toString(), packet.retain]))
  onTestFinished(() => client.endAsync(true))
  await new Promise<unknown>((resolve, reject) => client.on('connect', resolve).on('error', reject))
  return { client, messages }
}

describe.each(['mqtt', 'ws'])('publish and subscribe over %s', (scheme) => {
  const at = (url: string): string => url.replace('mqtt', scheme)

  it.each([0, 1, 2] as const)('at QoS %i, in order', async (qos) => {
    const { url } = await openIngest()
    const subscriber = await connected(at(url))
    await subscriber.client.subscribeAsync('chat/+', { qos })
    const publisher = await connected(at(url))
    const sent = Array.from({ length: 200 }, (_, i) => String(i))
    await Promise.all(sent.map((text) => publisher.client.publishAsync('chat/a', text, { qos })))
    await vi.waitFor(() => expect(subscriber.messages.length).toBe(200), WAIT)
    expect(subscriber.messages.map(([, payload]) => payload)).toEqual(sent)
  })

  it('of telemetry, also by those who subscribe later', async () => {
    const { url, log } = await openIngest()
    const publisher = await connected(at(url))
    await publisher.client.publishAsync('devices/a/telemetry', '1', { qos: 1 })
    const subscriber = await connected(at(url))
    await subscriber.client.subscribeAsync('devices/+/telemetry/#')
    await publisher.client.publishAsync('devices/a/telemetry', '2', { qos: 1 })
    await publisher.client.publishAsync('devices/a/telemetry/t', '3', { qos: 2 })
    await vi.waitFor(() => expect(subscriber.messages.map(([, payload]) => payload)).toEqual(['2', '3']), WAIT)
    await subscriber.client.unsubscribeAsync('devices/+/telemetry/#')
    await publisher.client.publishAsync('devices/a/telemetry', '4', { qos: 1 })
    expect(log.messages().map(([, payload]) => payload)).toEqual(['1', '2', '3', '4'])
    expect(subscriber.messages.length).toBe(2)
  })

  it('of retained messages', async () => {
    const { url } = await openIngest()
    const publisher = await connected(at(url))
    await publisher.client.publishAsync('devices/a/telemetry', '1', { qos: 1, retain: true })
    await publisher.client.publishAsync('home/b', '2', { retain: true, qos: 1 })
    await publisher.client.publishAsync('home/b', '', { retain: true, qos: 1 })
    const subscriber = await connected(at(url))
    await subscriber.client.subscribeAsync('#')
    await vi.waitFor(() => expect(subscriber.messages).toEqual([['devices/a/telemetry', '1', true]]), WAIT)
  })

  it('of a persistent session, queued while it is away', async () => {
    const { url } = await openIngest()
    const session = { clientId: 'office', clean: false }
    const first = await connected(at(url), session)
    await first.client.subscribeAsync(['home/#', 'devices/#'], { qos: 1 })
    await first.client.endAsync()
    const publisher = await connected(at(url))
    await publisher.client.publishAsync('home/a', '1', { qos: 1 })
    await publisher.client.publishAsync('devices/a/telemetry', '2', { qos: 2 })
    const { messages } = await connected(at(url), session)
    await publisher.client.publishAsync('home/a', '3', { qos: 1 })
    await vi.waitFor(() => expect(messages.map(([, payload]) => payload).toSorted()).toEqual(['1', '2', '3']), WAIT)
  })

  it('of a last will', async () => {
    const { url } = await openIngest()
    const subscriber = await connected(at(url))
    await subscriber.client.subscribeAsync('home/#', { qos: 1 })
    const dying = await connected(at(url), {
      will: { topic: 'home/dead', payload: Buffer.from('x'), qos: 1, retain: false },
    })
    dying.client.stream.destroy()
    await vi.waitFor(() => expect(subscriber.messages).toEqual([['home/dead', 'x', false]]), WAIT)
  })
})

describe('a delivery', () => {
  it('has at most the QoS granted to the filters it matches [MQTT-3.8.4-6]', async () => {
    const { ingest } = await openIngest()
    const publisher = await RawClient.open(ingest.port)
    publisher.publish('home/a', 'kept', 1, 1, { retain: true })
    await vi.waitFor(() => expect(publisher.ids('puback')).toEqual([1]), WAIT)
    const cases: [Record<string, 0 | 1 | 2>, number, number][] = [
      [{ 'home/+': 0 }, 0, 0],
      [{ 'home/+': 1 }, 1, 1],
      [{ 'home/+': 2 }, 1, 2],
      [{ 'home/+': 1, '+/b': 0, 'garden/#': 2 }, 1, 1],
    ]
    const subscribers: RawClient[] = []
    for (const [filters, retained] of cases) {
      const subscriber = await RawClient.open(ingest.port)
      await subscribe(subscriber, filters)
      await vi.waitFor(() => expect(deliveries(subscriber)).toEqual([['kept', retained, false]]), WAIT)
      subscribers.push(subscriber)
    }
    publisher.publish('home/a', 'live', 2, 2)
    for (const [i, [, , live]] of cases.entries())
      await vi.waitFor(
        () => expect(deliveries(subscribers[i] as RawClient).at(-1)).toEqual(['live', live, false]),
        WAIT,
      )
  })

  it('says that it is not the first, and only then [MQTT-3.3.1-1, MQTT-3.3.1-3]', async () => {
    const { ingest } = await openIngest()
    const session = { clientId: 'office', clean: false }
    const first = await RawClient.open(ingest.port, session)
    await subscribe(first, { 'home/+': 1 })
    const publisher = await RawClient.open(ingest.port)
    publisher.publish('home/a', '1', 2, 1, { dup: true })
    await vi.waitFor(() => expect(deliveries(first)).toEqual([['1', 1, false]]), WAIT)
    first.socket.destroy()
    await first.end()
    publisher.publish('home/a', '2', 1, 2)
    await vi.waitFor(() => expect(publisher.ids('puback')).toEqual([2]), WAIT)
    const second = await RawClient.open(ingest.port, session)
    const again: [string, number, boolean][] = [
      ['1', 1, true],
      ['2', 1, false],
    ]
    await vi.waitFor(() => expect(deliveries(second)).toEqual(again), WAIT)
    expect(second.ids('publish')[0]).toBe(first.ids('publish')[0])
  })

  it('stays what is to be acknowledged, though the filter was subscribed to anew at QoS 0 [MQTT-3.3.1-2, MQTT-4.4.0-1]', async () => {
    const { ingest } = await openIngest()
    const session = { clientId: 'office', clean: false }
    const first = await RawClient.open(ingest.port, session)
    await subscribe(first, { 'home/+': 1 })
    const publisher = await RawClient.open(ingest.port)
    publisher.publish('home/a', '1', 1, 1)
    await vi.waitFor(() => expect(deliveries(first)).toEqual([['1', 1, false]]), WAIT)
    await subscribe(first, { 'home/+': 0 })
    first.socket.destroy()
    await first.end()
    const second = await RawClient.open(ingest.port, session)
    await vi.waitFor(() => expect(deliveries(second)).toEqual([['1', 1, true]]), WAIT)
    second.send({ cmd: 'puback', messageId: second.ids('publish')[0] as number })
    await pinged(second)
    second.socket.destroy()
    await second.end()
    const third = await RawClient.open(ingest.port, session)
    await pinged(third)
    expect(deliveries(third)).toEqual([])
  })
})

describe('a persistent session', () => {
  it('stores no filter that was refused', async () => {
    const { ingest } = await openIngest({ maxFilterLength: 10 })
    const session = { clientId: 'office', clean: false }
    const first = await RawClient.open(ingest.port, session)
    const long = 'x'.repeat(11)
    await subscribe(first, { a: 1, [long]: 1 }, [1, 128])
    first.send({ cmd: 'disconnect' })
    await first.end()
    const publisher = await RawClient.open(ingest.port)
    publisher.publish(long, 'refused', 1, 1)
    publisher.publish('a', 'granted', 1, 2)
    await vi.waitFor(() => expect(publisher.ids('puback')).toEqual([1, 2]), WAIT)
    const second = await RawClient.open(ingest.port, session)
    await vi.waitFor(() => expect(deliveries(second).length).toBeGreaterThan(0), WAIT)
    await pinged(second)
    expect(deliveries(second).map(([payload]) => payload)).toEqual(['granted'])
  })

  it('is not shut out by a malformed filter beside a valid one', async () => {
    const { ingest } = await openIngest()
    const session = { clientId: 'office', clean: false }
    const first = await RawClient.open(ingest.port, session)
    // `a` and `a/#/b`, both at QoS 1; mqtt-packet will not write them.
    first.write(Buffer.from([0x82, 14, 0, 1, 0, 1, 0x61, 1, 0, 5, 0x61, 0x2f, 0x23, 0x2f, 0x62, 1]))
    await first.end()
    expect((await new RawClient(ingest.port).connect(session)).returnCode).toBe(0)
  })
})

describe('bounds', () => {
  it('a retained message beyond them is forwarded, not retained', async () => {
    const { url, metric } = await openIngest({ maxRetained: 2, maxRetainedBytes: 100 })
    const { client, messages } = await connected(url)
    await client.subscribeAsync('#')
    for (const topic of ['a', 'b', 'c']) await client.publishAsync(topic, '1', { qos: 1, retain: true })
    await client.publishAsync('a', 'x'.repeat(200), { qos: 1, retain: true })
    await client.publishAsync('b', '', { qos: 1, retain: true })
    await client.publishAsync('d', '2', { qos: 1, retain: true })
    await vi.waitFor(() => expect(messages.length).toBe(6), WAIT)
    const late = await connected(url)
    await late.client.subscribeAsync('#')
    await vi.waitFor(() => expect(late.messages.map(([topic]) => topic).toSorted()).toEqual(['a', 'd']), WAIT)
    expect(await metric('bound_hits_total', { bound: 'retained' })).toBe(2)
  })

  it('a message beyond a session queue is not queued', async () => {
    const { url, metric } = await openIngest({ maxQueued: 5 })
    const session = { clientId: 'office', clean: false }
    const first = await connected(url, session)
    await first.client.subscribeAsync('home/#', { qos: 1 })
    await first.client.endAsync()
    const publisher = await connected(url)
    for (let i = 0; i < 9; i++) await publisher.client.publishAsync('home/a', String(i), { qos: 1 })
    const { messages } = await connected(url, session)
    await vi.waitFor(() => expect(messages.map(([, payload]) => payload)).toEqual(['0', '1', '2', '3', '4']), WAIT)
    expect(await metric('bound_hits_total', { bound: 'session queue' })).toBe(4)
    for (let i = 0; i < 20; i++) await publisher.client.publishAsync('home/a', `live ${i}`, { qos: 1 })
    await vi.waitFor(() => expect(messages.length).toBe(25), WAIT)
  })

  it('a persistent session gives way to another when its client is away', async () => {
    const { ingest, metric } = await openIngest({ maxStoredSessions: 1 })
    await subscribed(ingest.port, 'a', (client) => client.send({ cmd: 'disconnect' }))
    await vi.waitFor(async () => expect(await metric('connections')).toBe(0), WAIT)
    await subscribed(ingest.port, 'b')
    expect(await metric('bound_hits_total', { bound: 'sessions away' })).toBe(1)
    const again = new RawClient(ingest.port)
    expect(await again.connect({ clientId: 'a', clean: false })).toMatchObject({ sessionPresent: false })
  })

  it('a persistent session is discarded when its client is away too long, and not while it is connected', async () => {
    const { ingest, metric } = await openIngest({ maxSessionAwayMs: 0 })
    await subscribed(ingest.port, 'here')
    await subscribed(ingest.port, 'away', (client) => client.send({ cmd: 'disconnect' }))
    await vi.waitFor(async () => expect(await metric('bound_hits_total', { bound: 'sessions away' })).toBe(1), WAIT)
    for (const [clientId, sessionPresent] of [
      ['away', false],
      ['here', true],
    ] as const) {
      const client = new RawClient(ingest.port)
      expect(await client.connect({ clientId, clean: false })).toMatchObject({ sessionPresent })
    }
  })

  it('a persistent session is discarded in time also when somebody sets the clock back', async () => {
    let time = Date.now()
    const { ingest, metric } = await openIngest({ maxSessionAwayMs: 0 }, undefined, () => (time -= 1_000))
    await subscribed(ingest.port, 'away', (client) => client.send({ cmd: 'disconnect' }))
    await vi.waitFor(async () => expect(await metric('bound_hits_total', { bound: 'sessions away' })).toBe(1), WAIT)
  })

  it('QoS 2 packet ids of a client that is away give way to those of others', async () => {
    const { ingest, log, metric } = await openIngest({ maxUnreleasedTotal: 3 })
    const gone = await RawClient.open(ingest.port, { clientId: 'gone', clean: false })
    for (let id = 1; id <= 3; id++) gone.publish('devices/a/telemetry', '1', 2, id)
    await vi.waitFor(() => expect(gone.of('pubrec').length).toBe(3), WAIT)
    gone.send({ cmd: 'disconnect' })
    await vi.waitFor(async () => expect(await metric('connections')).toBe(0), WAIT)
    const here = await RawClient.open(ingest.port)
    here.publish('devices/b/telemetry', '2', 2, 1)
    await vi.waitFor(() => expect(here.of('pubrec').length).toBe(1), WAIT)
    expect(log.messages().length).toBe(4)
  })

  it('persistent sessions beyond them cannot subscribe', async () => {
    const { ingest } = await openIngest({ maxStoredSessions: 1 })
    for (const [clientId, granted] of [
      ['a', 1],
      ['b', 128],
      ['a', 1],
    ] as const) {
      const client = await RawClient.open(ingest.port, { clientId, clean: false })
      client.send({ cmd: 'subscribe', messageId: 1, subscriptions: [{ topic: 'home/#', qos: 1 }] })
      await vi.waitFor(() => expect(client.of('suback')).toMatchObject([{ granted: [granted] }]), WAIT)
    }
  })
})

/** A client with a persistent session and a subscription, once SUBACK is there. */
async function subscribed(port: number, clientId: string, then?: (client: RawClient) => void): Promise<void> {
  const client = await RawClient.open(port, { clientId, clean: false })
  client.send({ cmd: 'subscribe', messageId: 1, subscriptions: [{ topic: 'home/#', qos: 1 }] })
  await vi.waitFor(() => expect(client.of('suback')).toMatchObject([{ granted: [1] }]), WAIT)
  then?.(client)
}
