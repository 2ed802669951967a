import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { newSecret } from '../../ingest/identity/passwords.ts'
import type { Limits } from '../../ingest/limits.ts'
import { removeFolder, temporaryFolder } from '../../simulators/program.ts'
import { type Fixture, HeldLog, openIngest, pinged, RawClient, subscribe, WAIT } from './fixture.ts'

const NAMES = ['flood', 'good'] as const
const secrets = { flood: newSecret(), good: newSecret() }

let folder: string
let file: string
beforeAll(async () => {
  folder = await temporaryFolder()
  file = join(folder, 'passwords')
  await writeFile(file, NAMES.map((name) => `${name}:${secrets[name].hash}:gateway=${name}-*\n`).join(''))
})
afterAll(() => removeFolder(folder))

function guarded(limits: Partial<Limits>): Promise<Fixture> {
  return openIngest(limits, new HeldLog(), Date.now, { MQTT_AUTH: 'password', MQTT_PASSWORDS: file })
}

const as = (name: (typeof NAMES)[number], more = '') => ({
  clientId: `${name}${more}`,
  username: name,
  password: Buffer.from(secrets[name].secret),
})

async function codeOf({ ingest }: Fixture, options: Parameters<RawClient['connect']>[0]): Promise<number | undefined> {
  return (await new RawClient(ingest.port).connect(options)).returnCode
}

describe('one address', () => {
  it('has a share of the connections', async () => {
    const on = await openIngest({ maxConnectionsPerAddress: 2 })
    const [first] = [await RawClient.open(on.ingest.port), await RawClient.open(on.ingest.port)]
    await new RawClient(on.ingest.port).end()
    expect(await on.metric('refusals_total', { reason: 'too many connections of one address' })).toBe(1)
    first.send({ cmd: 'disconnect' })
    await first.end()
    await RawClient.open(on.ingest.port)
  })

  it('may begin so many connections in a time, also such as are closed at once', async () => {
    const on = await openIngest({ maxAttemptsPerAddress: 1 })
    for (let i = 0; i < 10; i++) (await RawClient.open(on.ingest.port)).send({ cmd: 'disconnect' })
    await new RawClient(on.ingest.port).end()
    expect(await on.metric('refusals_total', { reason: 'too many attempts of one address' })).toBe(1)
    const comesIn = async (): Promise<boolean> => {
      const client = new RawClient(on.ingest.port)
      client.send({ cmd: 'connect', protocolId: 'MQTT', protocolVersion: 4, clean: true, clientId: '', keepalive: 0 })
      await vi.waitFor(() => expect(client.closed || client.of('connack').length > 0).toBe(true), WAIT)
      return !client.closed
    }
    await vi.waitFor(async () => expect(await comesIn()).toBe(true), { interval: 100, timeout: 15_000 })
  })
})

describe('one client', () => {
  it('has a share of the connections, and leaves those of others', async () => {
    const on = await guarded({ maxConnectionsPerName: 2 })
    const kept = [await RawClient.open(on.ingest.port, as('flood', '/1'))]
    kept.push(await RawClient.open(on.ingest.port, as('flood', '/2')))
    expect(await codeOf(on, as('flood', '/3'))).toBe(3)
    expect(await codeOf(on, as('good'))).toBe(0)
    expect(await on.metric('refusals_total', { reason: 'too many connections of one name' })).toBe(1)
    for (const client of kept) await pinged(client)
  })

  it('has a share of the wills', async () => {
    const on = await guarded({ maxWillBytesPerClient: 100 })
    const will = { topic: 'devices/flood-1/telemetry', payload: Buffer.alloc(60), qos: 1 as const, retain: false }
    expect(await codeOf(on, { ...as('flood', '/1'), will })).toBe(0)
    expect(await codeOf(on, { ...as('flood', '/2'), will })).toBe(3)
    expect(await codeOf(on, { ...as('good'), will: { ...will, topic: 'devices/good-1/telemetry' } })).toBe(0)
  })

  it('has a share of the levels of filters, over all its connections', async () => {
    const on = await guarded({ maxSubscriptionLevelsPerClient: 6 })
    const [one, two] = [
      await RawClient.open(on.ingest.port, as('flood', '/1')),
      await RawClient.open(on.ingest.port, as('flood', '/2')),
    ]
    await subscribe(one, { 'commands/flood/a': 0 })
    await subscribe(two, { 'commands/flood/a': 0, 'commands/flood/b': 0 }, [0, 128])
    await subscribe(await RawClient.open(on.ingest.port, as('good')), { 'commands/good/a': 0 })
    one.send({ cmd: 'unsubscribe', messageId: 2, unsubscriptions: ['commands/flood/a'] })
    await pinged(one)
    await subscribe(two, { 'commands/flood/b': 0 })
  })

  it('pushes out its own stored sessions, and none of another', async () => {
    const on = await guarded({ maxStoredSessionsPerClient: 2 })
    const store = async (name: (typeof NAMES)[number], more: string): Promise<boolean> => {
      const client = new RawClient(on.ingest.port)
      const { sessionPresent } = await client.connect({ ...as(name, more), clean: false })
      await subscribe(client, { [`commands/${name}/#`]: 1 })
      client.send({ cmd: 'disconnect' })
      await client.end()
      await vi.waitFor(async () => expect(await on.metric('connections')).toBe(0), WAIT)
      return sessionPresent
    }
    await store('good', '/1')
    for (const more of ['/1', '/2', '/3']) await store('flood', more)
    expect(await store('good', '/1')).toBe(true)
    expect(await store('flood', '/3')).toBe(true)
    expect(await store('flood', '/1')).toBe(false)
  })

  it.each([
    ['messages', { maxMessagesPerSecond: 100 }, (i: number) => `devices/flood-${i % 10}/telemetry`],
    [
      'new devices',
      { maxNewDevicesPerSecond: 100, maxDevicesPerConnection: 100 },
      (i: number) => `devices/flood-${i}/telemetry`,
    ],
  ])(
    'that sends too many %s is read more slowly, loses nothing, and holds up no other',
    async (_what, limits, topic) => {
      const on = await guarded(limits)
      const [flood, good] = [
        await RawClient.open(on.ingest.port, as('flood')),
        await RawClient.open(on.ingest.port, as('good')),
      ]
      for (let i = 1; i <= 300; i++) flood.publish(topic(i), '{"a":1}', 1, i)
      good.publish('devices/good-1/telemetry', '{"a":1}', 1, 1)
      await vi.waitFor(() => expect(good.ids('puback')).toEqual([1]), WAIT)
      flood.publish(topic(300), '{"a":1}', 1, 301)
      await vi.waitFor(() => expect(flood.of('puback').length).toBe(301), WAIT)
      expect(await on.metric('bound_hits_total', { bound: 'pace of a client' })).toBeGreaterThan(0)
      expect(flood.closed).toBe(false)
    },
  )
})

it('a filter with many levels or wildcards is refused', async () => {
  const on = await openIngest()
  const client = await RawClient.open(on.ingest.port)
  const deep = Array.from({ length: 16 }, () => 'a').join('/')
  await subscribe(client, { [deep]: 0, [`${deep}/a`]: 0, '+/+/a/#': 0, '+/+/+/#': 0 }, [0, 128, 0, 128])
})

it('filters that share no level stay within the memory that all have', async () => {
  const on = await openIngest({ maxSubscriptionLevelsTotal: 30 })
  for (let i = 0; i < 3; i++) {
    const client = await RawClient.open(on.ingest.port)
    await subscribe(client, { [`${i}/1/2/3/4/5/6/7/8/9`]: 0 })
  }
  await subscribe(await RawClient.open(on.ingest.port), { more: 0 }, [128])
})

it('a client that asks for no keepalive is closed when it is silent for long', async () => {
  const on = await openIngest({ keepaliveSeconds: 1 })
  await (await RawClient.open(on.ingest.port, { keepalive: 0 })).end()
  expect(await on.metric('closes_total', { reason: 'keepalive timeout' })).toBe(1)
})
