import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type ConnectionOptions, connect as connectTls } from 'node:tls'
import { SignJWT } from 'jose'
import type { IConnectPacket } from 'mqtt-packet'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { WebSocket } from 'ws'
import { newSecret } from '../../../ingest/identity/passwords.ts'
import { Authority, type Issued } from '../../../simulators/authority.ts'
import { removeFolder, temporaryFolder } from '../../../simulators/program.ts'
import { deliveries, type Fixture, HeldLog, openIngest, pinged, RawClient, subscribe, WAIT } from '../fixture.ts'

/** Files are looked at once a second. */
const FOLLOWED = { interval: 20, timeout: 15_000 }
const NAMES = ['truck-1', 'truck-2', 'gw', 'ops'] as const
const KINDS = { 'truck-1': '', 'truck-2': '', gw: ':gateway=van-*,truck-2', ops: ':service' }
const secrets = Object.fromEntries(NAMES.map((name) => [name, newSecret()])) as Record<
  (typeof NAMES)[number],
  ReturnType<typeof newSecret>
>
const ACL = 'user ops\ntopic read devices/#\ntopic deny devices/truck-2/#\ntopic write commands/#\n'

let folder: string
beforeAll(async () => {
  folder = await temporaryFolder()
})
afterAll(() => removeFolder(folder))

let written = 0
async function file(content: string): Promise<string> {
  const path = join(folder, `file-${written++}`)
  await writeFile(path, content)
  return path
}

const passwordFile = () => file(NAMES.map((name) => `${name}:${secrets[name].hash}${KINDS[name]}\n`).join(''))

async function guarded(environment: Record<string, string> = {}, log = new HeldLog()): Promise<Fixture> {
  const passwords = { MQTT_AUTH: 'password', MQTT_PASSWORDS: await passwordFile(), MQTT_ACL: await file(ACL) }
  return openIngest({ maxDenials: 5, failedLoginMs: 10 }, log, Date.now, { ...passwords, ...environment })
}

const as = (name: keyof typeof secrets, clientId: string = name): Partial<IConnectPacket> => ({
  clientId,
  username: name,
  password: Buffer.from(secrets[name].secret),
})

const code = async ({ ingest }: Fixture, options: Partial<IConnectPacket>) =>
  (await new RawClient(ingest.port).connect(options)).returnCode

describe('a password', () => {
  it('lets its name in, with a client id of that name alone', async () => {
    const on = await guarded()
    expect(await code(on, as('truck-1'))).toBe(0)
    expect(await code(on, as('truck-1', 'truck-1/second'))).toBe(0)
    expect(await code(on, as('truck-1', ''))).toBe(0)
    expect(await code(on, as('truck-1', 'truck-2'))).toBe(5)
    expect(await code(on, as('truck-1', 'truck-11'))).toBe(5)
    expect(await code(on, { ...as('truck-1'), username: 'truck-2' })).toBe(4)
    expect(await code(on, { clientId: 'truck-1' })).toBe(5)
    expect(await code(on, { clientId: 'truck-1', username: 'truck-1', password: Buffer.alloc(0) })).toBe(4)
    expect(await on.metric('refusals_total', { reason: 'return code 5' })).toBe(3)
    expect(await on.metric('refusals_total', { reason: 'return code 4' })).toBe(2)
  })

  it('that fails too often is locked out for its name and address, and no other name is', async () => {
    const on = await guarded()
    const wrong = { ...as('truck-1'), password: Buffer.from('x') }
    await Promise.all(Array.from({ length: 10 }, () => code(on, wrong)))
    expect(await code(on, as('truck-1'))).toBe(5)
    expect(await code(on, as('truck-2'))).toBe(0)
  })

  it('that is taken out of the file ends its connections, and no others', async () => {
    const MQTT_PASSWORDS = await passwordFile()
    const on = await guarded({ MQTT_PASSWORDS })
    const [gone, stays] = [
      await RawClient.open(on.ingest.port, as('truck-1')),
      await RawClient.open(on.ingest.port, as('gw')),
    ]
    const next = newSecret()
    const lines = (await readFile(MQTT_PASSWORDS, 'utf8')).split('\n').filter((line) => !line.startsWith('truck-1:'))
    await writeFile(MQTT_PASSWORDS, `${lines.join('\n')}truck-1:${next.hash}\n`)
    await vi.waitFor(() => expect(gone.closed).toBe(true), FOLLOWED)
    await pinged(stays)
    expect(await code(on, as('truck-1'))).toBe(4)
    expect(await code(on, { ...as('truck-1'), password: Buffer.from(next.secret) })).toBe(0)
    expect(await on.metric('closes_total', { reason: 'credential over' })).toBe(1)
  })
})

describe('a device', () => {
  it.each([0, 1, 2] as const)('publishes for itself alone, at QoS %i', async (qos) => {
    const on = await guarded()
    const ops = await RawClient.open(on.ingest.port, as('ops'))
    await subscribe(ops, { 'devices/truck-1/telemetry': 0 })
    const client = await RawClient.open(on.ingest.port, as('truck-2'))
    client.publish('devices/truck-1/telemetry', '{"forged":1}', qos, 1, { retain: true })
    client.publish('devices/truck-1/telemetry', '{"forged":2}', qos, 2)
    client.publish('devices/truck-2/telemetry', '{"a":1}', qos, 3)
    await vi.waitFor(() => expect(on.log.messages()).toEqual([['truck-2', '{"a":1}']]), WAIT)
    const acks = qos === 0 ? [] : client.ids(qos === 1 ? 'puback' : 'pubrec')
    if (qos > 0) await vi.waitFor(() => expect(client.ids(qos === 1 ? 'puback' : 'pubrec')).toEqual([1, 2, 3]), WAIT)
    expect(acks.length).toBeLessThanOrEqual(3)
    const letters = on.log.letters()
    expect(letters.map(({ key, headers }) => [key, headers?.reason, headers?.topic])).toEqual([
      ['truck-2', 'not-allowed', 'devices/truck-1/telemetry'],
      ['truck-2', 'not-allowed', 'devices/truck-1/telemetry'],
    ])
    await pinged(ops)
    expect(deliveries(ops)).toEqual([])
    // Nor was it retained.
    const late = await RawClient.open(on.ingest.port, as('ops', 'ops/late'))
    await subscribe(late, { 'devices/truck-1/telemetry': 0 })
    await pinged(late)
    expect(deliveries(late)).toEqual([])
    expect(await on.metric('denials_total', { action: 'publish' })).toBe(2)
  })

  it('that publishes for others again and again is closed, and each message is a dead letter', async () => {
    const on = await guarded()
    const client = await RawClient.open(on.ingest.port, as('truck-2'))
    for (let id = 1; id <= 6; id++) client.publish('devices/truck-1/telemetry', '1', 1, id)
    await client.end()
    expect(on.log.letters()).toHaveLength(6)
    expect(await on.metric('closes_total', { reason: 'not allowed' })).toBe(1)
  })

  it('leaves no will for another', async () => {
    const on = await guarded()
    const will = {
      topic: 'devices/truck-1/telemetry',
      payload: Buffer.from('"forged"'),
      qos: 1 as const,
      retain: false,
    }
    const client = await RawClient.open(on.ingest.port, { ...as('truck-2'), will })
    client.socket.destroy()
    await vi.waitFor(() => expect(on.log.letters()).toHaveLength(1), WAIT)
    expect(on.log.letters()[0]?.headers?.reason).toBe('not-allowed')
    expect(on.log.messages()).toEqual([])
  })

  it('subscribes to its own commands alone', async () => {
    const on = await guarded()
    const client = await RawClient.open(on.ingest.port, as('truck-1'))
    await subscribe(client, { 'commands/truck-1/#': 1, 'commands/truck-1/+/x': 0, 'commands/truck-1': 0 })
    const foreign = [
      '#',
      'commands/#',
      'commands/+/#',
      'commands/truck-2/#',
      'devices/truck-1/telemetry',
      '+/truck-1/#',
    ]
    for (const filter of foreign) await subscribe(client, { [filter]: 1 }, [128])
    const ops = await RawClient.open(on.ingest.port, as('ops'))
    ops.publish('commands/truck-1/go', 'now', 1, 1)
    await vi.waitFor(() => expect(deliveries(client)).toContainEqual(['now', 1, false]), WAIT)
    expect(await on.metric('denials_total', { action: 'subscribe' })).toBe(foreign.length)
  })
})

it('a gateway publishes for its devices, and no others', async () => {
  const on = await guarded()
  const client = await RawClient.open(on.ingest.port, as('gw'))
  for (const [i, id] of ['van-1', 'truck-2', 'gw', 'truck-1'].entries()) {
    client.publish(`devices/${id}/telemetry`, '1', 1, i + 1)
  }
  await vi.waitFor(() => expect(client.ids('puback')).toEqual([1, 2, 3, 4]), WAIT)
  expect(
    on.log
      .messages()
      .map(([id]) => id)
      .toSorted(),
  ).toEqual(['gw', 'truck-2', 'van-1'])
})

describe('the file of rights', () => {
  it('gives a service what it may read; what is denied is not delivered, though a wider filter was granted', async () => {
    const on = await guarded()
    const ops = await RawClient.open(on.ingest.port, as('ops'))
    await subscribe(ops, { 'devices/#': 1 })
    await subscribe(ops, { 'devices/truck-2/#': 1, '#': 1 }, [128, 128])
    const [one, two] = [
      await RawClient.open(on.ingest.port, as('truck-1')),
      await RawClient.open(on.ingest.port, as('truck-2')),
    ]
    two.publish('devices/truck-2/telemetry', 'secret', 1, 1)
    await vi.waitFor(() => expect(two.ids('puback')).toEqual([1]), WAIT)
    one.publish('devices/truck-1/telemetry', '1', 1, 1)
    await vi.waitFor(() => expect(deliveries(ops)).toEqual([['1', 1, false]]), WAIT)
  })

  it('that shrinks ends subscriptions, and a session that is away', async () => {
    const MQTT_ACL = await file(ACL)
    const on = await guarded({ MQTT_ACL })
    const open = await RawClient.open(on.ingest.port, as('ops'))
    await subscribe(open, { 'devices/#': 1 })
    const away = await RawClient.open(on.ingest.port, { ...as('ops', 'ops/away'), clean: false })
    await subscribe(away, { 'devices/#': 1 })
    away.send({ cmd: 'disconnect' })
    await away.end()
    const device = await RawClient.open(on.ingest.port, as('truck-1'))
    await writeFile(MQTT_ACL, 'user ops\ntopic read devices/truck-1/#\npattern write notes/%u\n')
    await vi.waitFor(() => expect(open.closed).toBe(true), FOLLOWED)
    const back = new RawClient(on.ingest.port)
    expect(await back.connect({ ...as('ops', 'ops/away'), clean: false })).toMatchObject({ sessionPresent: false })
    device.publish('devices/truck-1/telemetry', '1', 1, 1)
    // A right that was added holds for who is connected.
    device.publish('notes/truck-1', '1', 1, 2)
    await vi.waitFor(() => expect(device.ids('puback')).toEqual([1, 2]), WAIT)
    expect(on.log.letters().map(({ headers }) => headers?.reason)).toEqual(['bad-topic'])
    await pinged(back)
    expect(deliveries(back)).toEqual([])
  })

  it('holds for clients that are not asked who they are, too', async () => {
    const MQTT_ACL = await file('topic readwrite #\ntopic deny test/nosubscribe\n')
    const on = await openIngest({}, new HeldLog(), Date.now, { MQTT_ACL })
    const client = await RawClient.open(on.ingest.port)
    await subscribe(client, { 'test/nosubscribe': 0, 'test/other': 0 }, [128, 0])
  })
})

const withToken = async (clientId: string, token: Promise<string>) => ({
  clientId,
  username: 'any',
  password: Buffer.from(await token),
})

describe('a token', () => {
  const AUTH_SECRET = 'not-so-secret-but-32-bytes-long!'
  const issued = (claims: Record<string, unknown>, seconds = 3_600, audience = 'tidemark-mqtt') =>
    new SignJWT(claims)
      .setProtectedHeader({ alg: 'HS256' })
      .setIssuer('tidemark')
      .setAudience(audience)
      .setExpirationTime(Math.floor(Date.now() / 1000) + seconds)
      .sign(Buffer.from(AUTH_SECRET))

  it('is the password of its subject, with an audience of its own, and lasts so long', async () => {
    const on = await openIngest({ failedLoginMs: 10 }, new HeldLog(), Date.now, { MQTT_AUTH: 'jwt', AUTH_SECRET })
    const gateway = await RawClient.open(
      on.ingest.port,
      await withToken('gw', issued({ sub: 'gw', devices: ['van-'] })),
    )
    gateway.publish('devices/van-3/telemetry', '1', 1, 1)
    await vi.waitFor(() => expect(on.log.messages()).toEqual([['van-3', '1']]), WAIT)
    for (const token of [
      issued({ sub: 'gw' }, 3_600, 'tidemark'),
      issued({ sub: 'other' }),
      issued({ sub: 'gw' }, -60),
      issued({ sub: 'gw' }, 366 * 86_400),
      issued({ sub: 'gw', devices: 'all' }),
      issued({}),
    ]) {
      expect(await code(on, await withToken('gw', token))).toBe(5)
    }
    // Clocks may differ by 5 s.
    const short = await RawClient.open(on.ingest.port, await withToken('short', issued({ sub: 'short' }, -4)))
    await vi.waitFor(() => expect(short.closed).toBe(true), FOLLOWED)
    await pinged(gateway)
  })
})

describe('a client certificate', () => {
  let authority: Authority
  let server: Issued
  let one: Issued
  let two: Issued
  let environment: Record<string, string>

  beforeAll(async () => {
    authority = await Authority.create(join(folder, 'authority'))
    server = await authority.issue('localhost', 'DNS:localhost,IP:127.0.0.1')
    one = await authority.issue('truck-1')
    two = await authority.issue('truck-2')
    await authority.revoke()
    const { ca, crl } = authority
    environment = { MQTT_AUTH: 'tls', MQTT_PORT: 'off', MQTT_TLS_CERT: server.cert, MQTT_TLS_KEY: server.key }
    Object.assign(environment, { MQTT_TLS_CA: ca, MQTT_TLS_CRL: crl })
  })

  const opened = (more: Record<string, string> = {}) =>
    openIngest({ failedLoginMs: 10 }, new HeldLog(), Date.now, { ...environment, ...more })

  async function overTls(
    { ingest }: Fixture,
    issued: Issued | undefined,
    more: ConnectionOptions = {},
  ): Promise<RawClient> {
    const identity = issued && { cert: await readFile(issued.cert), key: await readFile(issued.key) }
    const ca = await readFile(authority.ca)
    return RawClient.on(connectTls({ host: '127.0.0.1', port: ingest.tlsPort ?? 0, ca, ...identity, ...more }))
  }

  it('names the device; nobody comes in without one', async () => {
    const on = await opened()
    expect(on.ingest.port).toBe(0)
    const client = await overTls(on, one)
    expect((await client.connect({ clientId: 'truck-1' })).returnCode).toBe(0)
    client.publish('devices/truck-1/telemetry', '1', 1, 1)
    await vi.waitFor(() => expect(on.log.messages()).toEqual([['truck-1', '1']]), WAIT)
    expect((await (await overTls(on, one)).connect({ clientId: 'truck-2' })).returnCode).toBe(5)
    const stranger = await (await Authority.create(join(folder, 'stranger'))).issue('truck-1')
    for (const issued of [undefined, stranger]) {
      const refused = await overTls(on, issued)
      refused.send({ cmd: 'connect', protocolId: 'MQTT', protocolVersion: 4, clean: true, clientId: 'truck-1' })
      await refused.end()
      expect(refused.received).toEqual([])
    }
    const old = await overTls(on, one, { maxVersion: 'TLSv1.1', minVersion: 'TLSv1', ciphers: 'DEFAULT@SECLEVEL=0' })
    await old.end()
    expect(await on.metric('refusals_total', { reason: 'handshake failed' })).toBe(3)
    await pinged(client)
  })

  it('goes beside passwords on the same port', async () => {
    const on = await opened({ MQTT_AUTH: 'tls,password', MQTT_PASSWORDS: await passwordFile() })
    expect((await (await overTls(on, one)).connect({ clientId: 'truck-1' })).returnCode).toBe(0)
    expect((await (await overTls(on, undefined)).connect(as('gw'))).returnCode).toBe(0)
    expect((await (await overTls(on, undefined)).connect({ clientId: 'truck-1' })).returnCode).toBe(5)
  })

  it('that is revoked ends its connection, and opens no other, also by a resumed session', async () => {
    const on = await opened()
    const stays = await overTls(on, one)
    const gone = await overTls(on, two)
    const session = new Promise<Buffer>((resolve) => gone.tls.once('session', resolve))
    await gone.connect({ clientId: 'truck-2' })
    await stays.connect({ clientId: 'truck-1' })
    const resumed = await overTls(on, two, { session: await session })
    await authority.revoke('truck-2')
    await vi.waitFor(() => expect(gone.closed).toBe(true), FOLLOWED)
    expect(resumed.tls.isSessionReused()).toBe(true)
    expect((await resumed.connect({ clientId: 'truck-2' })).returnCode).toBe(5)
    await pinged(stays)
  })

  it('of the server is replaced when its files change, and no connection is lost', async () => {
    const next = await authority.issue('localhost', 'DNS:localhost,IP:127.0.0.1')
    const files = { MQTT_TLS_CERT: join(folder, 'server.pem'), MQTT_TLS_KEY: join(folder, 'server.key') }
    const put = async ({ cert, key }: Issued) => {
      await writeFile(files.MQTT_TLS_CERT, await readFile(cert))
      await writeFile(files.MQTT_TLS_KEY, await readFile(key))
    }
    await put(server)
    const on = await opened(files)
    const before = await overTls(on, one)
    await before.connect({ clientId: 'truck-1' })
    const serial = async () => {
      const client = await overTls(on, one)
      await vi.waitFor(() => expect(client.tls.getPeerCertificate().serialNumber).toBeDefined(), WAIT)
      return client.tls.getPeerCertificate().serialNumber
    }
    const first = await serial()
    await put(next)
    await vi.waitFor(async () => expect(await serial()).not.toBe(first), FOLLOWED)
    await pinged(before)
  })

  it('also works for WebSocket', async () => {
    const on = await opened()
    const options = { ca: await readFile(authority.ca), cert: await readFile(one.cert), key: await readFile(one.key) }
    const socket = new WebSocket(`wss://127.0.0.1:${on.ingest.tlsPort}`, ['mqtt'], options)
    await new Promise((resolve, reject) => {
      socket.on('open', resolve)
      socket.on('error', reject)
    })
    socket.terminate()
  })
})

it('a web page opens a WebSocket only if its origin is named', async () => {
  const on = await openIngest({}, new HeldLog(), Date.now, { MQTT_ORIGINS: 'https://fleet.example' })
  const opens = (origin?: string) =>
    new Promise<boolean>((resolve) => {
      const socket = new WebSocket(`ws://127.0.0.1:${on.ingest.port}`, ['mqtt'], origin === undefined ? {} : { origin })
      socket.on('open', () => resolve(true))
      socket.on('error', () => resolve(false))
      socket.on('open', () => socket.terminate())
    })
  expect(await opens()).toBe(true)
  expect(await opens('https://fleet.example')).toBe(true)
  expect(await opens('https://evil.example')).toBe(false)
  expect(await opens('null')).toBe(false)
  expect(await on.metric('refusals_total', { reason: 'foreign origin' })).toBe(2)
})
