import dns, { type LookupAllOptions } from 'node:dns'
import { once } from 'node:events'
import { Agent, get, type IncomingMessage } from 'node:http'
import { type AddressInfo, connect, type Socket } from 'node:net'
import { text } from 'node:stream/consumers'
import { pino } from 'pino'
import { Registry } from 'prom-client'
import { afterEach, beforeEach, describe, expect, it, type MockInstance, vi } from 'vitest'
import type { Api } from '../../api/app.ts'
import { type Caller, SCOPES } from '../../api/auth/caller.ts'
import type { Tokens } from '../../api/auth/tokens.ts'
import { ApiServer, type ServerOptions } from '../../api/server.ts'
import { ConfigurationError } from '../../processor/contract/errors.ts'
import { type Answer, type Freshness, type StatusReader, sliceOf } from '../../processor/contract/query.ts'
import { systemClock } from '../../processor/runtime/pause.ts'
import { Changelog } from './changes/changelog.ts'
import { Fleet } from './fleet.ts'
import { noLetters, noWriter, routed, silent, stage } from './stage.ts'

const FRESH: Freshness = { partition: 0, offset: 0, changelog: 0, lag: 0, servedBy: 'owner' }

const ANYONE: Caller = {
  subject: undefined,
  scopes: SCOPES,
  prefixes: undefined,
  expiresAt: undefined,
  isTrusted: () => true,
}

const servers: ApiServer[] = []
afterEach(async () => {
  for (const server of servers.splice(0)) await server[Symbol.asyncDispose]()
})

async function open(options: Partial<ServerOptions> = {}): Promise<ApiServer> {
  const server = await ApiServer.open({
    reader: routed(new Fleet(4, ['a'])),
    writer: noWriter,
    letters: noLetters,
    checks: async () => [],
    registry: new Registry(),
    logger: silent,
    host: '127.0.0.1',
    port: 0,
    ...options,
  })
  servers.push(server)
  return server
}

function requestOf(path: string): string {
  return `GET ${path} HTTP/1.1\r\nHost: x\r\n\r\n`
}

/** What the server answers to these bytes, until it closes the connection. */
async function raw(port: number, bytes: string): Promise<{ head: string; body: string }> {
  const socket = connect(port, '127.0.0.1')
  socket.write(bytes, 'latin1')
  const [head = '', body = ''] = (await text(socket)).split('\r\n\r\n')
  return { head, body }
}

describe('a request that is not HTTP', () => {
  it.each([
    ['garbage', '\x16\x03\x01\r\n\r\n', 400],
    ['words', 'Hello, how are you?\r\n\r\n', 400],
    ['an unknown method', 'FOO /livez HTTP/1.1\r\nHost: x\r\n\r\n', 501],
    ['a method in lower case', 'get /livez HTTP/1.0\r\n\r\n', 501],
    ['a null byte in the path', 'GET /v1/devices/a\0b HTTP/1.1\r\nHost: x\r\n\r\n', 400],
    ['two lengths', 'POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab', 400],
    [
      'a length and chunks',
      'POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
      400,
    ],
    [
      'a chunk without a length',
      'POST /v1/devices/batch-get HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n',
      400,
    ],
    ['long headers', `GET /livez HTTP/1.1\r\nHost: x\r\nX: ${'a'.repeat(20_000)}\r\n\r\n`, 431],
    ['a long path', `GET /v1/devices/${'a'.repeat(20_000)} HTTP/1.1\r\nHost: x\r\n\r\n`, 431],
  ])('is answered with a problem: %s', async (_, bytes, status) => {
    const { head, body } = await raw((await open()).port, bytes)
    expect(head).toMatch(new RegExp(`^HTTP/1\\.1 ${status} `))
    expect(head).toContain('content-type: application/problem+json')
    expect(head).toMatch(/^x-request-id: request-\w+$/m)
    expect(head).toMatch(/^cache-control: no-store$/m)
    expect(head).toMatch(/^date: \w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT$/im)
    expect(JSON.parse(body)).toMatchObject({ status, type: expect.stringMatching(/^urn:tidemark:problem:/) })
    if (status === 431) expect(JSON.parse(body).detail).toContain('more than the 16384 bytes')
  })

  it('is answered with 408 when it does not arrive in time', async () => {
    const { port } = await open({ limits: { requestTimeoutMs: 100 } })
    const { head, body } = await raw(
      port,
      'POST /v1/devices/batch-get HTTP/1.1\r\nHost: x\r\nX-Request-Id: mine\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n',
    )
    expect(head).toMatch(/^HTTP\/1\.1 408 /)
    expect(head).toMatch(/^x-request-id: mine$/m)
    expect(JSON.parse(body).type).toBe('urn:tidemark:problem:request-timeout')
  })

  it('is none where no byte of one has come: that connection is closed without a word', async () => {
    const { port } = await open({ limits: { requestTimeoutMs: 100 } })
    expect(await text(connect(port, '127.0.0.1'))).toBe('')
  })

  it('ends its connection where the answer to one before it is due', async () => {
    const answer = Promise.withResolvers<Answer>()
    const reader = { get: () => answer.promise } as unknown as StatusReader
    const { port, url } = await open({ reader })
    expect(await raw(port, `${requestOf('/v1/devices/a')}garbage\r\n\r\n`).catch(() => undefined)).not.toMatchObject({
      head: expect.stringContaining('400'),
    })
    answer.resolve({ status: undefined, freshness: FRESH })
    expect((await fetch(`${url}/livez`)).status).toBe(200)
  })

  it('does not end up within a stream', async () => {
    const log = new Changelog(1)
    const { port } = await open({ changes: { feed: log.feed(), clock: systemClock, random: () => 0 } })
    const socket = connect(port, '127.0.0.1')
    let seen = ''
    socket.on('data', (bytes) => (seen += bytes.toString()))
    socket.write(requestOf('/v1/changes'))
    await vi.waitFor(() => expect(seen).toContain('event: reset'), 10_000)
    socket.write('garbage\r\n\r\n')
    await once(socket, 'close')
    expect(seen.match(/HTTP\/1\.1/g)).toHaveLength(1)
  })

  it('disturbs no other connection', async () => {
    const { port, url } = await open()
    await raw(port, 'garbage\r\n\r\n')
    expect((await fetch(`${url}/livez`)).status).toBe(200)
  })
})

describe('odd but valid requests', () => {
  it.each([
    ['HTTP/1.0', 'GET /livez HTTP/1.0\r\n\r\n', 200],
    ['an empty host', 'GET /livez HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\n', 200],
    ['a probe of Envoy', 'GET /readyz HTTP/1.1\r\nHost: outbound|8080||api\r\nConnection: close\r\n\r\n', 200],
    ['an absolute target', 'GET http://x/livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n', 200],
    ['an upgrade', 'GET /livez HTTP/1.1\r\nHost: x\r\nConnection: upgrade, close\r\nUpgrade: websocket\r\n\r\n', 200],
    ['an encoded null byte', 'GET /v1/devices/a%00b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n', 400],
    ['PROPFIND', 'PROPFIND /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n', 405],
  ])('are answered: %s', async (_, bytes, status) => {
    const { head } = await raw((await open()).port, bytes)
    expect(head).toMatch(new RegExp(`^HTTP/1\\.1 ${status} `))
  })
})

describe('a client that goes', () => {
  const lines: string[] = []
  const logger = pino({ level: 'error' }, { write: (line: string) => lines.push(line) })
  const BATCH_GET = `POST /v1/devices/batch-get HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{`
  let asked: PromiseWithResolvers<Caller>
  const callerOf = vi.fn(() => asked.promise)
  const read = vi.fn(async () => ({ status: undefined, freshness: FRESH }))
  let api: Api
  beforeEach(async () => {
    lines.length = 0
    asked = Promise.withResolvers()
    callerOf.mockClear()
    read.mockClear()
    const reader = { get: read } as unknown as StatusReader
    const tokens = { callerOf } as unknown as Tokens
    api = (await stage({ reader, tokens, ratePerMinute: 9, logger })).api
    await api.listen({ host: '127.0.0.1', port: 0 })
  })
  afterEach(() => api.close())

  /** Until its caller is asked for; gives both ends of its connection. */
  async function begin(request: string): Promise<[client: Socket, server: Socket]> {
    const accepted = once(api.server, 'connection')
    const client = connect((api.server.address() as AddressInfo).port, '127.0.0.1')
    client.write(request)
    const [server] = await accepted
    await vi.waitFor(() => expect(callerOf).toHaveBeenCalled(), 10_000)
    return [client, server]
  }

  it('while it is asked who that is meets no error', async () => {
    const [client, server] = await begin(requestOf('/v1/devices/a'))
    client.destroy()
    await once(server, 'close')
    asked.resolve(ANYONE)
    await vi.waitFor(() => expect([...read.mock.calls, ...lines]).toHaveLength(1), 10_000)
    expect(lines).toEqual([])
  })

  it('in the middle of a body meets no error', async () => {
    const [client, server] = await begin(BATCH_GET)
    asked.resolve(ANYONE)
    // So that the body is being read.
    await api.inject('/livez')
    client.destroy()
    await once(server, 'close')
    await api.inject('/livez')
    expect(lines).toEqual([])
  })
})

/** Whoever waits so long fails by the time that a test has, ms. */
const NEVER_MS = 600_000

/** A connection that the server has accepted, and on which nothing was sent. */
async function connected({ port }: ApiServer): Promise<Socket> {
  const socket = connect(port, '127.0.0.1')
  await once(socket, 'connect')
  // Connections are accepted in order.
  await raw(port, 'GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n')
  return socket
}

/** Until the server listens no more. */
async function refusal({ port }: ApiServer): Promise<void> {
  const tried = async (): Promise<boolean> => {
    const socket = connect(port, '127.0.0.1')
    try {
      await once(socket, 'connect')
      return true
    } catch {
      return false
    } finally {
      socket.destroy()
    }
  }
  await expect.poll(tried).toBe(false)
}

describe('ApiServer', () => {
  it('says which port is taken and what to do', async () => {
    const { port } = await open()
    const failure = await open({ port }).catch((error: unknown) => error)
    expect(failure).toBeInstanceOf(ConfigurationError)
    expect(failure).toMatchObject({ code: 'PORT_UNAVAILABLE' })
    expect((failure as Error).message).toContain(`127.0.0.1:${port}`)
    expect((failure as Error).message).toContain('HTTP_PORT')
    await expect(open({ host: '192.0.2.1' })).rejects.toMatchObject({ code: 'PORT_UNAVAILABLE' })
  })

  it('listens at one address of localhost: a close waits for all that comes in', async () => {
    const both = [{ address: '127.0.0.1', family: 4 } as const, { address: '::1', family: 6 } as const]
    const lookup = vi.spyOn(dns, 'lookup') as unknown as MockInstance
    lookup.mockImplementation((name: string, _options: LookupAllOptions, done: (...answer: unknown[]) => void) =>
      done(null, name === 'localhost' ? both : both.filter(({ address }) => address === name)),
    )
    const { port, url } = await open({ host: 'localhost' })
    lookup.mockRestore()
    expect([url, (await fetch(`http://127.0.0.1:${port}/livez`)).status]).toEqual([`http://localhost:${port}`, 200])
    await expect(once(connect(port, '::1'), 'connect')).rejects.toThrow()
  })

  it('closes twice, with idle connections open', async () => {
    const server = await open()
    const agent = new Agent({ keepAlive: true })
    const [response] = await once(get(`${server.url}/livez`, { agent }), 'response')
    await text(response)
    await Promise.all([server[Symbol.asyncDispose](), server[Symbol.asyncDispose]()])
    await server[Symbol.asyncDispose]()
    await expect(fetch(`${server.url}/livez`)).rejects.toThrow()
    agent.destroy()
  })

  it('ends requests under way before it closes, and their connections with them', async () => {
    const asked = Promise.withResolvers<void>()
    const answer = Promise.withResolvers<Answer>()
    const reader = { get: () => (asked.resolve(), answer.promise) } as unknown as StatusReader
    const server = await open({ reader, drainMs: NEVER_MS })
    const response = fetch(`${server.url}/v1/devices/a`)
    await asked.promise
    const closed = server[Symbol.asyncDispose]()
    answer.resolve({ status: undefined, freshness: FRESH })
    const { status, headers } = await response
    expect([status, headers.get('connection')]).toEqual([404, 'close'])
    await closed
  })

  it('ends a connection with its answer that said, when it began, that it is kept', async () => {
    const status = Buffer.from(`{"deviceId":"a","pad":"${'x'.repeat(16 * 1024 * 1024)}"}`)
    const reader = { get: async () => ({ status: sliceOf(status), freshness: FRESH }) } as unknown as StatusReader
    const server = await open({ reader, drainMs: NEVER_MS })
    const agent = new Agent({ keepAlive: true })
    const [response] = (await once(get(`${server.url}/v1/devices/a`, { agent }), 'response')) as [IncomingMessage]
    expect(response.headers.connection).toBe('keep-alive')
    const closed = server[Symbol.asyncDispose]()
    await refusal(server)
    expect((await text(response)).length).toBeGreaterThan(status.length)
    await closed
    agent.destroy()
  })

  it('closes without waiting for a connection on which nothing was asked', async () => {
    const server = await open({ drainMs: NEVER_MS })
    const early = await connected(server)
    const closed = once(early, 'close')
    await server[Symbol.asyncDispose]()
    await closed
  })

  it.each([
    ['that has come and was not read yet', 'GET /livez HTTP/1.1\r\nHost: x\r\n\r\n', ''],
    ['that has begun to come', 'G', 'ET /livez HTTP/1.1\r\nHost: x\r\n\r\n'],
  ])('answers a request %s', async (_, beginning, rest) => {
    const server = await open({ drainMs: NEVER_MS })
    const socket = await connected(server)
    const answered = text(socket)
    socket.write(beginning)
    const closed = server[Symbol.asyncDispose]()
    await refusal(server)
    socket.write(rest)
    expect(await answered).toMatch(/^HTTP\/1\.1 200 .*\r\nconnection: close\r\n/is)
    await closed
  })

  it('cuts requests that do not end in time', async () => {
    const asked = Promise.withResolvers<void>()
    const reader = { get: () => (asked.resolve(), new Promise(() => undefined)) } as unknown as StatusReader
    const server = await open({ reader, drainMs: 50 })
    const failed = expect(fetch(`${server.url}/v1/devices/a`)).rejects.toThrow()
    await asked.promise
    await server[Symbol.asyncDispose]()
    await failed
  })

  it('is not ready while it gives notice of its close, and still answers', async () => {
    const notice = Promise.withResolvers<void>()
    const server = await open({ notice: () => notice.promise })
    expect((await fetch(`${server.url}/readyz`)).status).toBe(200)
    const closed = server[Symbol.asyncDispose]()
    const readiness = await fetch(`${server.url}/readyz`)
    expect(readiness.status).toBe(503)
    expect(await readiness.json()).toMatchObject({ detail: 'the process is shutting down' })
    const alive = await fetch(`${server.url}/livez`)
    expect([alive.status, alive.headers.get('connection')]).toEqual([200, 'close'])
    notice.resolve()
    await closed
  })
})
