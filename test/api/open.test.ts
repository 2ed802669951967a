import { copyFile, mkdtemp, readFile, rm } from 'node:fs/promises'
import { get } from 'node:http'
import { Agent, get as getSecurely } from 'node:https'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect as connectSecurely, type TLSSocket } from 'node:tls'
import { Registry } from 'prom-client'
import { afterEach, beforeEach, expect, it, vi } from 'vitest'
import { readAccess } from '../../api/auth/tokens.ts'
import { type ApiOptions, openApi } from '../../api/open.ts'
import { MAX_LOCAL_SEARCHES } from '../../api/reader/local.ts'
import type { Owner, OwnerMap } from '../../processor/contract/query.ts'
import { QueryServer } from '../../processor/query/query-server.ts'
import { readEnvironment } from '../../processor/runtime/environment.ts'
import { Authority } from '../../simulators/authority.ts'
import { Changelog } from './changes/changelog.ts'
import { Fleet } from './fleet.ts'
import { noLetters, noWriter, silent } from './stage.ts'

const PARTITIONS = 8
/** Each asks each of two processors about four partitions at once. */
const COUNTS = 16

let running: AsyncDisposableStack
beforeEach(() => {
  running = new AsyncDisposableStack()
})
afterEach(() => running.disposeAsync())

/** The API of a process that holds no partition, over the query endpoints of the members. */
async function apiOver(fleet: Fleet): Promise<string> {
  const endpoints = new Map<string, string>()
  for (const [instance, member] of fleet.members) {
    const registry = new Registry()
    const options = { host: '127.0.0.1', port: 0, secret: undefined, checks: async () => [], registry, logger: silent }
    const server = running.use(await QueryServer.open(options))
    server.serve(member)
    endpoints.set(instance, server.address)
  }
  const at = ({ instance }: Owner): Owner => ({ instance, endpoint: endpoints.get(instance) as string })
  const owners = async (): Promise<OwnerMap> => {
    const map = await fleet.owners()
    return new Map(
      Array.from(map, ([partition, { active, standbys }]) => [
        partition,
        { active: active && at(active), standbys: standbys.map(at) },
      ]),
    )
  }
  return serve(fleet, { owners, local: () => undefined, alone: false })
}

type Served = Pick<ApiOptions, 'owners' | 'local' | 'alone'>

function serve(fleet: Fleet, options: Served, environment: Record<string, string> = {}): Promise<string> {
  const checks: (() => Promise<readonly string[]>)[] = []
  const configuration = readEnvironment({ HTTP_PORT: '0', ...environment })
  const { tls } = readAccess(readEnvironment({ ...environment, HOST: '', HTTP_HOST: '' }))
  return openApi({
    configuration,
    access: { host: configuration.HTTP_HOST ?? configuration.HOST, tokens: undefined, tls },
    maxConnections: 100,
    version: '0.0.0',
    partitions: fleet.partitions,
    ...options,
    writer: noWriter,
    letters: noLetters,
    feed: new Changelog(fleet.partitions).feed(),
    notice: async () => undefined,
    logger: silent,
    registry: new Registry(),
    running,
    checks,
    problems: async () => (await Promise.all(checks.map((check) => check()))).flat(),
  })
}

it('reads devices, and stays ready, while counts keep the processors busy', async () => {
  const fleet = new Fleet(PARTITIONS, ['a', 'b'])
  const devices = Array.from({ length: 20 }, (_, i) => `truck-${i}`)
  for (const deviceId of devices) fleet.put(deviceId)
  const { promise: letGo, resolve } = Promise.withResolvers<void>()
  const held = new Map<string, number>()
  for (const [instance, member] of fleet.members) {
    const summarize = member.summarize.bind(member)
    member.summarize = async (question) => {
      held.set(instance, (held.get(instance) ?? 0) + 1)
      await letGo
      return summarize(question)
    }
  }
  const url = await apiOver(fleet)
  const ask = async (path: string, init: RequestInit = {}) => {
    const response = await fetch(`${url}${path}`, init)
    return { status: response.status, body: await response.json() }
  }
  const counts = Array.from({ length: COUNTS }, () => ask('/v1/devices/count?q=reported.t:>5'))
  await vi.waitFor(() => {
    for (const instance of fleet.members.keys()) expect(held.get(instance)).toBeGreaterThanOrEqual(COUNTS)
  }, 20_000)

  const body = JSON.stringify({ deviceIds: devices })
  const headers = { 'content-type': 'application/json' }
  const answers = await Promise.all([
    ...devices.map((deviceId) => ask(`/v1/devices/${deviceId}`)),
    ask('/v1/devices/batch-get', { method: 'POST', headers, body }),
    ask('/readyz'),
  ])
  expect(answers.map(({ status }) => status)).toEqual(answers.map(() => 200))
  expect(answers.at(-1)?.body).toEqual({ status: 'ready' })

  resolve()
  for (const count of await Promise.all(counts)) {
    expect(count).toMatchObject({ status: 200, body: { count: devices.length, complete: true } })
  }
})

it('answers more counts of its own partitions than may be under way at once', async () => {
  const fleet = new Fleet(PARTITIONS, ['a'])
  const member = fleet.member('a')
  fleet.put('truck-1')
  const { promise: letGo, resolve } = Promise.withResolvers<void>()
  let underWay = 0
  let most = 0
  const summarize = member.summarize.bind(member)
  member.summarize = async (question) => {
    most = Math.max(most, ++underWay)
    await letGo
    underWay--
    return summarize(question)
  }
  const url = await serve(fleet, {
    owners: fleet.owners,
    local: (endpoint) => fleet.members.get(endpoint),
    alone: true,
  })
  const counts = Array.from({ length: COUNTS }, () => fetch(`${url}/v1/devices/count?q=reported.t:>5`))
  await vi.waitFor(() => expect(underWay).toBe(MAX_LOCAL_SEARCHES), 20_000)
  resolve()
  for (const count of await Promise.all(counts)) {
    expect(count.status).toBe(200)
    expect(await count.json()).toMatchObject({ count: 1, complete: true })
  }
  expect([most, member.asked]).toEqual([MAX_LOCAL_SEARCHES, COUNTS * PARTITIONS])
})

it('keeps connections longer than balancers do, and as long as one in front of it needs', async () => {
  const fleet = new Fleet(PARTITIONS, ['a'])
  const options = { owners: fleet.owners, local: () => undefined, alone: true }
  const kept = async (environment: Record<string, string>) =>
    (await fetch(`${await serve(fleet, options, environment)}/livez`)).headers.get('keep-alive')
  expect(await kept({})).toBe('timeout=75')
  expect(await kept({ HTTP_KEEP_ALIVE_SECONDS: '620' })).toBe('timeout=620')
})

it('names what set an address that this machine does not have', async () => {
  const fleet = new Fleet(PARTITIONS, ['a'])
  const options = { owners: fleet.owners, local: () => undefined, alone: true }
  const failed = (environment: Record<string, string>) => serve(fleet, options, environment).catch(String)
  expect(await failed({ HTTP_HOST: '192.0.2.1' })).toMatch(/192\.0\.2\.1 is no address of this machine; set HTTP_HOST$/)
  // Without a zone, or on a machine without IPv6.
  expect(await failed({ HOST: 'fe80::1' })).toMatch(/\[fe80::1\]:\d+: Error: listen E.*; set HOST or HTTP_PORT$/)
  expect(await failed({ HOST: '192.0.2.1' })).toMatch(/is no address of this machine; set HOST$/)
})

it('is not ready where the group has no processor, and names the group and the topics that it looks for', async () => {
  const fleet = new Fleet(PARTITIONS, ['a'])
  const options = { owners: async () => new Map(), local: () => undefined, alone: false }
  const url = await serve(fleet, options, { GROUP: 'misspelt', TOPIC_PREFIX: 'fleet' })
  const response = await fetch(`${url}/readyz`)
  const detail = expect.stringMatching(/no processor .*GROUP=misspelt, TOPIC_PREFIX=fleet/)
  expect(await response.json()).toMatchObject({ status: 503, detail })
})

function statusAt(url: string, host: string): Promise<number | undefined> {
  return new Promise((resolve, reject) => {
    get(`${url}/openapi.json`, { headers: { host } }, (response) => {
      response.resume()
      resolve(response.statusCode)
    }).on('error', reject)
  })
}

it('answers requests to a name of this machine alone, unless somebody says who may ask', async () => {
  const fleet = new Fleet(PARTITIONS, ['a'])
  const options: Served = { owners: () => fleet.owners(), local: () => undefined, alone: false }
  const closed = await serve(fleet, options)
  for (const host of ['127.0.0.1', 'localhost:8080', '[::1]:80']) expect(await statusAt(closed, host)).toBe(200)
  for (const host of ['evil.example', '127.0.0.1.evil.example', 'localhost.evil.example:80', '[::1']) {
    expect(await statusAt(closed, host), host).toBe(403)
  }
  expect(await statusAt(await serve(fleet, options, { AUTH: 'none' }), 'fleet.example')).toBe(200)
})

it('speaks HTTPS, and takes a renewed certificate without losing a connection', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'https-'))
  running.defer(() => rm(folder, { recursive: true }))
  const authority = await Authority.create(folder)
  const [cert, key] = [join(folder, 'server.pem'), join(folder, 'server.key')]
  const renew = async (name: string) => {
    const issued = await authority.issue(name, 'IP:127.0.0.1')
    await copyFile(issued.key, key)
    await copyFile(issued.cert, cert)
  }
  await renew('first')
  const fleet = new Fleet(PARTITIONS, ['a'])
  const options: Served = { owners: () => fleet.owners(), local: () => undefined, alone: false }
  const url = await serve(fleet, options, { HTTP_TLS_CERT: cert, HTTP_TLS_KEY: key })
  expect(url).toMatch(/^https:/)
  const ca = await readFile(authority.ca)
  const agent = new Agent({ keepAlive: true, maxSockets: 1, ca })
  running.defer(() => agent.destroy())
  const ask = (through?: Agent): Promise<{ status: number | undefined; name: unknown; reused: boolean }> =>
    new Promise((resolve, reject) => {
      const request = getSecurely(`${url}/livez`, { agent: through ?? false, ca }, (response) => {
        const name = (response.socket as TLSSocket).getPeerCertificate().subject.CN
        const answer = { status: response.statusCode, name, reused: request.reusedSocket }
        response.resume().on('end', () => resolve(answer))
      }).on('error', reject)
    })
  expect(await ask(agent)).toEqual({ status: 200, name: 'first', reused: false })

  await renew('second')
  await vi.waitFor(async () => expect((await ask()).name).toBe('second'), 20_000)
  expect(await ask(agent)).toEqual({ status: 200, name: 'first', reused: true })

  const { port } = new URL(url)
  const old = connectSecurely({
    host: '127.0.0.1',
    port: Number(port),
    ca,
    maxVersion: 'TLSv1.1',
    minVersion: 'TLSv1.1',
  })
  await expect(new Promise((_resolve, reject) => old.on('error', reject))).rejects.toThrow()
  await expect(fetch(url.replace('https', 'http'))).rejects.toThrow()
})
