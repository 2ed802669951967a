import { generate } from 'mqtt-packet'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { Connection } from '../../../ingest/connection/connection.ts'
import { type HeldLog, openIngest, pinged, publication, RawClient, turns, WAIT } from '../fixture.ts'

const ID = 'truck-17'
const TOPIC = `devices/${ID}/telemetry`

async function told(log: HeldLog, story: string[], deviceId = ID): Promise<void> {
  await vi.waitFor(() => expect(log.story(deviceId)).toEqual(story), WAIT)
}

describe('a session', () => {
  it('begins at CONNECT, and again after the first message', async () => {
    const { ingest, log } = await openIngest()
    const client = await RawClient.open(ingest.port, { clientId: ID })
    await told(log, ['online: connected'])
    client.publish(TOPIC, '1', 1, 1)
    client.publish(TOPIC, '2', 1, 2)
    await vi.waitFor(() => expect(client.ids('puback')).toEqual([1, 2]), WAIT)
    await told(log, ['online: connected', 'online: connected'])
    const kinds = log.durable.map(({ record }) => record.headers?.kind ?? String(record.value))
    expect(kinds).toEqual(['connectivity', '1', 'connectivity', '2'])
    const [first, second] = log.connections(ID)
    expect(first?.session).toBe(second?.session)
  })

  it('of another client id speaks for the devices it publishes for', async () => {
    const { ingest, log } = await openIngest()
    const gateway = await RawClient.open(ingest.port, { clientId: 'gateway of hall 3' })
    gateway.publish(TOPIC, '1')
    gateway.publish('devices/truck-18/telemetry/t', '1')
    gateway.send({ cmd: 'disconnect' })
    for (const id of [ID, 'truck-18']) await told(log, ['online: connected', 'offline: client disconnect'], id)
    expect(log.connections().length).toBe(4)
  })

  it('is told again with the 4th and the 16th message: those before may have made no device', async () => {
    const { ingest, log } = await openIngest()
    const client = await RawClient.open(ingest.port)
    for (let id = 1; id <= 20; id++) client.publish(TOPIC, String(id), 1, id)
    await vi.waitFor(() => expect(client.ids('puback').length).toBe(20), WAIT)
    const kinds = log.durable.map(({ record }) => record.headers?.kind ?? String(record.value))
    const at = kinds.flatMap((kind, i) => (kind === 'connectivity' ? [kinds[i - 1]] : []))
    expect(at).toEqual(['1', '4', '16'])
    expect(new Set(log.connections(ID).map(({ session }) => session)).size).toBe(1)
  })

  it('does not begin with a message that was dropped', async () => {
    const { ingest, log, metric } = await openIngest({ maxQos0Bytes: 10 })
    const client = await RawClient.open(ingest.port)
    client.publish(TOPIC, '1')
    await pinged(client)
    expect(await metric('dropped_qos0_total', { reason: 'buffer full' })).toBe(1)
    client.publish(TOPIC, '2', 1, 1)
    await told(log, ['online: connected'])
    expect(log.messages()).toEqual([[ID, '2']])
  })

  it('ends with DISCONNECT', async () => {
    const { ingest, log, metric } = await openIngest()
    const client = await RawClient.open(ingest.port, {
      clientId: ID,
      will: { topic: TOPIC, payload: Buffer.from('"will"'), qos: 1, retain: false },
    })
    client.send({ cmd: 'disconnect' })
    await told(log, ['online: connected', 'offline: client disconnect'])
    expect(log.messages()).toEqual([])
    await vi.waitFor(async () => expect(await metric('closes_total', { reason: 'client disconnect' })).toBe(1), WAIT)
  })

  it('ends with the connection', async () => {
    const { ingest, log } = await openIngest()
    const client = await RawClient.open(ingest.port, { clientId: ID })
    client.socket.destroy()
    await told(log, ['online: connected', 'offline: connection lost'])
  })

  it('ends when a malformed packet closes the connection', async () => {
    const { ingest, log } = await openIngest()
    const client = await RawClient.open(ingest.port, { clientId: ID })
    client.write(Buffer.from([0xf0, 0]))
    await told(log, ['online: connected', 'offline: connection lost'])
  })

  it('ends when the keepalive runs out [MQTT-3.1.2-24]', async () => {
    const { ingest, log, metric } = await openIngest()
    await RawClient.open(ingest.port, { clientId: ID, keepalive: 1 })
    await told(log, ['online: connected', 'offline: keepalive timeout'])
    await vi.waitFor(async () => expect(await metric('closes_total', { reason: 'keepalive timeout' })).toBe(1), WAIT)
  })

  it('ends when the keepalive runs out in the middle of a message', async () => {
    const { ingest, log } = await openIngest()
    const client = await RawClient.open(ingest.port, { clientId: ID, keepalive: 1 })
    client.write(publication(TOPIC, Buffer.alloc(1_000), 1, 1).subarray(0, 500))
    await told(log, ['online: connected', 'offline: keepalive timeout'])
  })

  it('epochs grow over sessions begun in one millisecond', async () => {
    const now = Date.now()
    const { ingest, log } = await openIngest({}, undefined, () => now)
    const ids = Array.from({ length: 30 }, (_, i) => `d${i}`)
    for (const clientId of ids) (await RawClient.open(ingest.port, { clientId })).send({ cmd: 'disconnect' })
    await vi.waitFor(() => expect(log.connections().length).toBe(60), WAIT)
    // In the order of their beginnings: that of the log is only so within a partition.
    const epochs = ids.map((id) => log.connections(id)[0]?.session as number)
    expect([...new Set(epochs)].sort((a, b) => a - b)).toEqual(epochs)
    expect(epochs.every(Number.isSafeInteger)).toBe(true)
  })

  it('of a gateway with many devices ends for each, in bounded batches', async () => {
    const { ingest, log, metric } = await openIngest()
    const gateway = await RawClient.open(ingest.port, { clientId: '' })
    const ids = Array.from({ length: 3_000 }, (_, i) => `sensor-${i}`)
    gateway.write(Buffer.concat(ids.map((id) => publication(`devices/${id}/telemetry`, '1'))))
    await vi.waitFor(() => expect(log.messages().length).toBe(3_000), WAIT)
    expect(await metric('tracked_devices')).toBe(3_000)
    log.hold = true
    gateway.socket.destroy()
    await vi.waitFor(() => expect(log.held('telemetry')).toBe(500), WAIT)
    await turns()
    expect(log.held('telemetry')).toBe(500)
    log.release()
    await vi.waitFor(
      () => expect(log.connections().filter(({ reason }) => reason === 'connection lost').length).toBe(3_000),
      WAIT,
    )
    await vi.waitFor(async () => expect(await metric('tracked_devices')).toBe(0), WAIT)
  })

  it('tracks no more devices than its bounds, and counts it', async () => {
    const { ingest, log, metric } = await openIngest({ maxDevicesPerConnection: 3, maxDevices: 4 })
    for (const hall of ['a', 'b']) {
      const gateway = await RawClient.open(ingest.port)
      for (let i = 0; i < 5; i++) gateway.publish(`devices/${hall}${i}/telemetry`, '1', 1, i + 1)
      await vi.waitFor(() => expect(gateway.of('puback').length).toBe(5), WAIT)
    }
    expect(log.connections().length).toBe(4)
    expect(await metric('bound_hits_total', { bound: 'devices of a connection' })).toBe(2)
    expect(await metric('bound_hits_total', { bound: 'tracked devices' })).toBe(4)
  })

  it('of a device that names itself and publishes tracks one device, and none when it has ended', async () => {
    const { ingest, metric } = await openIngest()
    const client = await RawClient.open(ingest.port, { clientId: ID })
    client.publish(TOPIC, '1', 1, 1)
    await vi.waitFor(() => expect(client.ids('puback')).toEqual([1]), WAIT)
    expect(await metric('tracked_devices')).toBe(1)
    client.send({ cmd: 'disconnect' })
    await vi.waitFor(async () => expect(await metric('tracked_devices')).toBe(0), WAIT)
  })

  it('of a refused or unfinished CONNECT leaves no trace', async () => {
    const { ingest, log, metric } = await openIngest()
    log.fault = new Error('down')
    await (await RawClient.open(ingest.port, { clientId: ID })).end()
    log.fault = undefined
    const unfinished = new RawClient(ingest.port)
    unfinished.write(generate({ cmd: 'connect', clientId: ID }).subarray(0, -1))
    await vi.waitFor(async () => expect(await metric('connections')).toBe(1), WAIT)
    unfinished.socket.destroy()
    await vi.waitFor(async () => expect(await metric('connections')).toBe(0), WAIT)
    await turns()
    expect(log.durable).toEqual([])
  })

  it('that ends while the log fails is told when the log works again', async () => {
    const { ingest, log, metric } = await openIngest()
    const client = await RawClient.open(ingest.port, { clientId: ID })
    await told(log, ['online: connected'])
    log.failing = new Error('disk full')
    client.socket.destroy()
    await vi.waitFor(
      async () => expect(await metric('failed_appends_total', { reason: 'Error' })).toBeGreaterThan(0),
      WAIT,
    )
    log.failing = undefined
    await told(log, ['online: connected', 'offline: connection lost'])
  })
})

describe('a last will', () => {
  const will = { topic: TOPIC, payload: Buffer.from('{"state":"dead"}'), qos: 1 as const, retain: false }

  it('in the tree is telemetry of its session', async () => {
    const { ingest, log } = await openIngest()
    const client = await RawClient.open(ingest.port, { clientId: ID, will })
    client.socket.destroy()
    await told(log, ['online: connected', 'offline: connection lost'])
    const [online] = log.connections(ID)
    const record = log.durable.find((one) => one.record.headers?.will !== undefined)?.record
    expect(record).toMatchObject({ key: ID, headers: { will: String(online?.session) } })
    expect(String(record?.value)).toBe('{"state":"dead"}')
    // Kept since CONNECT, without what was read with that.
    expect(record?.value?.buffer.byteLength).toBe(will.payload.length)
  })

  it('of a single metric keeps its name; at QoS 0 it counts too', async () => {
    const { ingest, log } = await openIngest()
    const client = await RawClient.open(ingest.port, { will: { ...will, topic: `${TOPIC}/state`, qos: 0 } })
    client.socket.destroy()
    await vi.waitFor(() => expect(log.durable.length).toBe(1), WAIT)
    expect(log.durable[0]?.record.headers).toMatchObject({ metric: 'state', will: expect.stringMatching(/^\d+$/) })
  })

  it('of a session that is taken over carries the old epoch', async () => {
    const { ingest, log } = await openIngest()
    await RawClient.open(ingest.port, { clientId: ID, will })
    await told(log, ['online: connected'])
    await RawClient.open(ingest.port, { clientId: ID, will })
    await vi.waitFor(() => expect(log.messages().length).toBe(1), WAIT)
    const record = log.durable.find((one) => one.record.headers?.will !== undefined)?.record
    expect(record?.headers?.will).toBe(String(log.connections(ID)[0]?.session))
  })

  it('elsewhere goes to the dead letters and to subscribers', async () => {
    const { ingest, log } = await openIngest()
    const subscriber = await RawClient.open(ingest.port)
    subscriber.send({ cmd: 'subscribe', messageId: 1, subscriptions: [{ topic: 'home/#', qos: 0 }] })
    await vi.waitFor(() => expect(subscriber.of('suback').length).toBe(1), WAIT)
    const client = await RawClient.open(ingest.port, { will: { ...will, topic: 'home/lost' } })
    client.socket.destroy()
    await vi.waitFor(() => expect(subscriber.of('publish')).toMatchObject([{ topic: 'home/lost' }]), WAIT)
    expect(log.letters()).toMatchObject([{ headers: { reason: 'bad-topic', topic: 'home/lost' } }])
  })

  it('is not published when the connection is closed since its append failed', async () => {
    const { ingest, log } = await openIngest()
    const client = await RawClient.open(ingest.port, { will })
    log.failing = new Error('disk full')
    client.publish(TOPIC, '1', 1, 1)
    await client.end()
    log.failing = undefined
    await told(log, ['offline: connection lost'])
    expect(log.messages()).toEqual([])
  })

  it('is not published after DISCONNECT, though the connection breaks before the broker reads it', async () => {
    const { ingest, log, metric } = await openIngest()
    const client = await RawClient.open(ingest.port, { clientId: ID, will })
    await told(log, ['online: connected'])
    log.hold = true
    client.publish(TOPIC, '1', 1, 1)
    await vi.waitFor(() => expect(log.held('telemetry')).toBe(2), WAIT)
    // A reset takes with it what has not been read.
    const received = vi.spyOn(Connection.prototype, 'receive')
    onTestFinished(() => received.mockRestore())
    client.send({ cmd: 'disconnect' })
    await vi.waitFor(() => expect(received).toHaveBeenCalledWith(generate({ cmd: 'disconnect' })), WAIT)
    client.socket.resetAndDestroy()
    await vi.waitFor(async () => expect(await metric('connections')).toBe(0), WAIT)
    log.release()
    await vi.waitFor(() => expect(log.story(ID).at(-1)).toBe('offline: client disconnect'), WAIT)
    expect(log.messages()).toEqual([[ID, '1']])
  })

  it('is published after a DISCONNECT that is malformed [MQTT-3.14.1-1]', async () => {
    const { ingest, log } = await openIngest()
    const client = await RawClient.open(ingest.port, { clientId: ID, will })
    client.write(Buffer.from([0xe1, 0]))
    await vi.waitFor(() => expect(log.messages()).toEqual([[ID, '{"state":"dead"}']]), WAIT)
    await told(log, ['online: connected', 'offline: connection lost'])
  })

  it('refuses CONNECT when too many are stored', async () => {
    const { ingest } = await openIngest({ maxWillBytes: 100 })
    expect((await new RawClient(ingest.port).connect({ will })).returnCode).toBe(0)
    expect(
      (await new RawClient(ingest.port).connect({ will: { ...will, payload: Buffer.alloc(80) } })).returnCode,
    ).toBe(3)
  })

  it('of a session that has ended leaves its room to others', async () => {
    const { ingest, log } = await openIngest({ maxWillBytes: 100 })
    for (const clientId of ['a', 'b']) {
      const client = new RawClient(ingest.port)
      const { returnCode } = await client.connect({ clientId, will: { ...will, payload: Buffer.alloc(60) } })
      expect(returnCode).toBe(0)
      client.send({ cmd: 'disconnect' })
      await told(log, ['online: connected', 'offline: client disconnect'], clientId)
    }
  })
})

describe('a stop', () => {
  it('makes devices unknown, publishes no wills, and lets acks leave', async () => {
    const { ingest, log } = await openIngest({ stopTimeoutMs: 5_000 })
    const will = { topic: TOPIC, payload: Buffer.from('"dead"'), qos: 1 as const, retain: false }
    const client = await RawClient.open(ingest.port, { clientId: ID, will })
    await told(log, ['online: connected'])
    log.hold = true
    client.write(Buffer.concat([1, 2, 3].map((id) => publication(TOPIC, String(id), 1, id))))
    await vi.waitFor(() => expect(log.held('telemetry')).toBe(4), WAIT)
    const stopped = ingest[Symbol.asyncDispose]()
    expect(ingest[Symbol.asyncDispose]()).toBe(stopped)
    await turns()
    expect(client.closed).toBe(false)
    log.release()
    await stopped
    await client.end()
    expect(client.ids('puback')).toEqual([1, 2, 3])
    expect(log.story(ID).at(-1)).toBe('unknown: server shutdown')
    expect(log.story(ID).filter((said) => !said.startsWith('online')).length).toBe(1)
    expect(log.messages().length).toBe(3)
    await expect(new RawClient(ingest.port).end()).resolves.toBeUndefined()
  })

  it('refuses who comes while it waits for the log', async () => {
    const { ingest, log, metric } = await openIngest({ stopTimeoutMs: 5_000 })
    const client = await RawClient.open(ingest.port)
    const late = new RawClient(ingest.port)
    // Its connection is accepted by then, and nothing was sent on it.
    await vi.waitFor(() => expect(late.socket.connecting).toBe(false), WAIT)
    await pinged(client)
    log.hold = true
    client.publish(TOPIC, '1', 1, 1)
    await vi.waitFor(() => expect(log.held('telemetry')).toBe(2), WAIT)
    const stopped = ingest[Symbol.asyncDispose]()
    expect((await late.connect({ clientId: 'late' })).returnCode).toBe(3)
    await late.end()
    log.release()
    await stopped
    expect(log.story('late')).toEqual([])
    expect(await metric('refusals_total', { reason: 'server unavailable' })).toBe(1)
  })

  it('does not wait for ever for a log that does not answer', async () => {
    const { ingest, log } = await openIngest({ stopTimeoutMs: 30 })
    const client = await RawClient.open(ingest.port, { clientId: ID })
    log.hold = true
    client.publish(TOPIC, '1', 1, 1)
    await vi.waitFor(() => expect(log.held('telemetry')).toBeGreaterThan(0), WAIT)
    await ingest[Symbol.asyncDispose]()
    await client.end()
    expect(client.of('puback')).toEqual([])
  })
})
