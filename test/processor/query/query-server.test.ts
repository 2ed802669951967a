import { once } from 'node:events'
import { createServer } from 'node:http'
import { type AddressInfo, connect } from 'node:net'
import { setImmediate } from 'node:timers/promises'
import { Worker } from 'node:worker_threads'
import { pino } from 'pino'
import { Registry } from 'prom-client'
import { afterEach, beforeEach, describe, expect, onTestFinished, test, vi } from 'vitest'
import { RemoteReaders } from '../../../api/reader/remote.ts'
import { UnavailableError } from '../../../processor/contract/errors.ts'
import { type Order, parseOrder } from '../../../processor/contract/order.ts'
import { partitionOf } from '../../../processor/contract/partition.ts'
import { type Answer, bufferOf } from '../../../processor/contract/query.ts'
import {
  COPIES_PATH,
  LIST_PATH,
  MAX_REQUEST_BYTES,
  PAST_PATH,
  READ_PATH,
} from '../../../processor/contract/query-wire.ts'
import { QueryServer } from '../../../processor/query/query-server.ts'
import { sign } from '../../../processor/runtime/cluster-secret.ts'
import { parseQuery } from '../../../processor/search/language/parser.ts'
import {
  encodeSearchQuestion,
  encodeSummaryQuestion,
  SEARCH_PATH,
  SUMMARY_PATH,
} from '../../../processor/search/wire.ts'
import { Fleet } from '../../api/fleet.ts'

const logger = pino({ level: 'silent' })

function bytes({ status, freshness }: Answer) {
  return { status: status && bufferOf(status), freshness }
}
const SECRET = 'sixteen-characters-or-more'
/** Longer than any test takes: how fast a busy machine is decides nothing here. */
const PATIENT_MS = 600_000
const IMPATIENT_MS = 300

function serve(secret?: string, problems: readonly string[] = []): Promise<QueryServer> {
  const checks = async () => problems
  return QueryServer.open({ host: '127.0.0.1', port: 0, secret, checks, registry: new Registry(), logger })
}

/** A processor that takes 1,100 ms for each answer but the first. */
const ANSWERS_LATE = `
const { createServer } = require('node:http')
const { parentPort, workerData } = require('node:worker_threads')
let asked = 0
const server = createServer((_, response) => {
  if (asked++ === 0) return response.end('[]')
  setTimeout(() => {
    response.end('[]', () => {
      Atomics.store(workerData, 0, 1)
      Atomics.notify(workerData, 0)
    })
  }, 1_100)
}).listen(0, '127.0.0.1', () => parentPort.postMessage(server.address().port))
`

describe('a query endpoint', () => {
  let fleet: Fleet
  let server: QueryServer
  let readers: RemoteReaders

  beforeEach(async () => {
    fleet = new Fleet(4, ['a', 'b'])
    server = await serve(SECRET)
    server.serve(fleet.member('a'))
    readers = new RemoteReaders({ secret: SECRET, logger, answerWithinMs: PATIENT_MS })
  })

  afterEach(async () => {
    readers[Symbol.dispose]()
    await server[Symbol.asyncDispose]()
  })

  const remote = (endpoint = server.address) => readers.connect({ instance: 'a', endpoint })

  /** From now on an answer is late when it is waited for as `late`, and no other is. */
  const impatient = () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
    onTestFinished(() => void vi.useRealTimers())
    readers[Symbol.dispose]()
    readers = new RemoteReaders({ secret: SECRET, logger, answerWithinMs: IMPATIENT_MS })
    /** `begun`: the processor has been asked. */
    return async (answer: Promise<unknown>, begun: () => boolean) => {
      const refused = expect(answer).rejects.toThrow(`longer than ${IMPATIENT_MS} ms`)
      while (!begun()) await setImmediate()
      vi.advanceTimersByTime(IMPATIENT_MS)
      await refused
    }
  }

  const raw = async (path: string, body?: string, secret = SECRET) => {
    const method = body === undefined ? 'GET' : 'POST'
    const headers: Record<string, string> =
      secret === '' ? {} : { authorization: sign(secret, { method, path, body: body ?? '' }, Date.now()) }
    const init = body === undefined ? { headers } : { method: 'POST', body, headers }
    const response = await fetch(`http://${server.address}${path}`, init)
    return { status: response.status, text: await response.text() }
  }

  test('passes the bytes of a status on as they are', async () => {
    fleet.put('truck-1')
    const partition = partitionOf('truck-1', 4)
    fleet.assign(partition, 'a')
    const ids = ['truck-1', 'nobody']
    const answers = await remote().getMany(partition, ids)
    expect(answers.map(bytes)).toEqual((await fleet.member('a').getMany(partition, ids)).map(bytes))
    expect(await remote().list(partition, undefined, 5)).toEqual(await fleet.member('a').list(partition, undefined, 5))
    expect(await remote().copies()).toEqual(await fleet.member('a').copies())
    fleet.member('a').outcomes.set(6, 'stale')
    for (const [deviceId, offset] of [
      ['truck-1', 6],
      ['truck-1', 5],
      ['nobody', 6],
    ] as const) {
      const position = { partition, offset }
      const expected = await fleet.member('a').getPast(position, deviceId, 0)
      const { outcome, ...answer } = await remote().getPast(position, deviceId, 0)
      expect([bytes(answer), outcome]).toEqual([bytes(expected), expected.outcome])
    }
    await expect(remote().getPast({ partition, offset: 7 }, 'truck-1', 9)).rejects.toMatchObject({
      code: 'POSITION_NOT_REACHED',
      message: 'at 7',
    })
    expect(fleet.member('a').held.at(-1)).toBe(9)
  })

  test.each([[1], [200]])('passes on the bytes of %i statuses that are not ASCII', async (count) => {
    const ids = Array.from({ length: count }, (_, i) => `geräte-${i}`)
    for (const deviceId of ids)
      fleet.put(deviceId, { note: { value: `Ä\u0080ÿ 漢字 🚚 ${'x'.repeat(100)}`, at: '2026-11-26T09:00:00.000Z' } })
    const partition = partitionOf(ids[0] as string, 4)
    fleet.assign(partition, 'a')
    const answers = await remote().getMany(partition, ids)
    expect(answers.map(bytes)).toEqual((await fleet.member('a').getMany(partition, ids)).map(bytes))
    const total = answers.reduce((sum, { status }) => sum + (status === undefined ? 0 : status.end - status.start), 0)
    expect(total > 12 * 1024).toBe(count > 1)
  })

  test('answers questions asked at once in one request, each with its own outcome', async () => {
    fleet.assign(0, 'a')
    fleet.assign(1, 'b')
    const [mine, others, many] = await Promise.allSettled([
      remote().getMany(0, ['x']),
      remote().getMany(1, ['y']),
      remote().getMany(
        0,
        Array.from({ length: 1_000 }, (_, i) => `d${i}`),
      ),
    ])
    expect(mine).toMatchObject({ status: 'fulfilled', value: [{ freshness: { partition: 0, servedBy: 'owner' } }] })
    expect(others).toMatchObject({ status: 'rejected', reason: { code: 'NOT_OWNER', name: 'UnavailableError' } })
    expect(many.status === 'fulfilled' && many.value.length).toBe(1_000)
  })

  test('is asked again at once, not after its connection, when it comes back on its port', async () => {
    fleet.assign(0, 'a')
    await remote().getMany(0, ['x'])
    const { address } = server
    await server[Symbol.asyncDispose]()
    await expect(remote(address).getMany(0, ['x'])).rejects.toThrow(UnavailableError)
    const port = Number(address.split(':')[1])
    const options = {
      host: '127.0.0.1',
      port,
      secret: SECRET,
      checks: async () => [],
      registry: new Registry(),
      logger,
    }
    server = await QueryServer.open(options)
    await expect(remote(address).getMany(0, ['x'])).rejects.toThrow('starting')
    server.serve(fleet.member('a'))
    expect(await remote(address).getMany(0, ['x'])).toHaveLength(1)
  })

  test('that does not answer in time is left alone for a while', async () => {
    const late = impatient()
    fleet.assign(0, 'a')
    fleet.member('a').fault = () => new Promise<never>(() => undefined)
    await late(remote().getMany(0, ['x']), () => fleet.member('a').asked > 0)
    const { asked } = fleet.member('a')
    await expect(remote().getMany(0, ['x'])).rejects.toThrow('not answered lately')
    expect(fleet.member('a').asked).toBe(asked)
  })

  test('that is late with searches is still asked for all else', async () => {
    const late = impatient()
    fleet.assign(0, 'a')
    fleet.put('truck-1')
    const { promise: letGo, resolve } = Promise.withResolvers<void>()
    const summarize = fleet.member('a').summarize.bind(fleet.member('a'))
    let isAsked = false
    fleet.member('a').summarize = async (question) => {
      isAsked = true
      await letGo
      return summarize(question)
    }
    const question = { partition: 0, query: parseQuery('reported.t:>5'), within: undefined, by: [], metrics: [] }
    const ask = () => remote().summarize({ ...question, from: undefined })
    await late(ask(), () => isAsked)
    await expect(ask()).rejects.toThrow('not answered lately')
    expect(await remote().getMany(0, ['x'])).toHaveLength(1)
    expect((await remote().list(0, undefined, 5)).freshness.servedBy).toBe('owner')
    expect(await remote().copies()).not.toEqual([])
    resolve()
    await vi.waitFor(async () => expect((await ask()).next).toBeUndefined())
  })

  test('is asked again as soon as it answers, and at any time by whoever is patient', async () => {
    const late = impatient()
    fleet.assign(0, 'a')
    const { promise: letGo, resolve } = Promise.withResolvers<void>()
    fleet.member('a').fault = () => letGo
    await late(remote().getMany(0, ['x']), () => fleet.member('a').asked > 0)
    const patient = readers.connect({ instance: 'a', endpoint: server.address }, true).getMany(0, ['x'])
    await expect(remote().getMany(0, ['x'])).rejects.toThrow('not answered lately')
    resolve()
    expect(await patient).toHaveLength(1)
    expect(await remote().getMany(0, ['x'])).toHaveLength(1)
  })

  test('is not called late by a process that stood still itself', async () => {
    const answered = new Int32Array(new SharedArrayBuffer(4))
    const worker = new Worker(ANSWERS_LATE, { eval: true, workerData: answered })
    using patient = new RemoteReaders({ secret: undefined, logger, answerWithinMs: 1_000 })
    try {
      const [port] = (await once(worker, 'message')) as [number]
      const reader = patient.connect({ instance: 'a', endpoint: `127.0.0.1:${port}` })
      await reader.copies()
      const copies = reader.copies()
      // On a connection that is kept the request is on its way after this.
      await setImmediate()
      // The answer comes, and its time passes, while this process stands still.
      expect(Atomics.wait(answered, 0, 0, 20_000)).toBe('ok')
      expect(await copies).toEqual([])
    } finally {
      await worker.terminate()
    }
  })

  test('answers reads while it holds as many questions as it may', async () => {
    fleet.assign(0, 'a')
    const { promise: letGo, resolve } = Promise.withResolvers<void>()
    const getPast = fleet.member('a').getPast.bind(fleet.member('a'))
    let held = 0
    fleet.member('a').getPast = async (...question) => {
      held++
      await letGo
      return getPast(...question)
    }
    const question = JSON.stringify({ position: { partition: 0, offset: 1 }, deviceId: 'x', withinMs: 9 })
    const asked = Array.from({ length: 512 }, () => raw(PAST_PATH, question))
    await vi.waitFor(() => expect(held).toBe(512), { timeout: 20_000 })
    expect(await raw(PAST_PATH, question)).toMatchObject({ status: 503 })
    expect(await remote().getMany(0, ['x'])).toHaveLength(1)
    resolve()
    expect(new Set((await Promise.all(asked)).map(({ status }) => status))).toEqual(new Set([200]))
    expect(await raw(PAST_PATH, question)).toMatchObject({ status: 200 })
  })

  test('answers reads while it searches as much as it may', async () => {
    fleet.assign(0, 'a')
    const { promise: letGo, resolve } = Promise.withResolvers<void>()
    const summarize = fleet.member('a').summarize.bind(fleet.member('a'))
    let held = 0
    fleet.member('a').summarize = async (question) => {
      held++
      await letGo
      return summarize(question)
    }
    const searched = { partition: 0, query: parseQuery(''), within: undefined, from: undefined }
    const order = parseOrder('deviceId') as Order
    const search = encodeSearchQuestion({ ...searched, order, after: undefined, limit: 1 })
    const summary = encodeSummaryQuestion({ ...searched, by: [], metrics: [] })
    const asked = Array.from({ length: 512 }, () => raw(SUMMARY_PATH, summary))
    await vi.waitFor(() => expect(held).toBe(512), { timeout: 20_000 })
    expect(await raw(SUMMARY_PATH, summary)).toMatchObject({ status: 503 })
    expect(await raw(SEARCH_PATH, search)).toMatchObject({ status: 503 })
    expect(await remote().getMany(0, ['x'])).toHaveLength(1)
    expect(await remote().copies()).not.toEqual([])
    resolve()
    expect(new Set((await Promise.all(asked)).map(({ status }) => status))).toEqual(new Set([200]))
    expect(await raw(SEARCH_PATH, search)).toMatchObject({ status: 200 })
  })

  test.each([[READ_PATH], [LIST_PATH], [PAST_PATH], [COPIES_PATH]])(
    '%s takes only callers that hold the secret',
    async (path) => {
      const body = path === COPIES_PATH ? undefined : '[]'
      const answers = await Promise.all([`${SECRET}x`, SECRET.slice(1), ''].map((wrong) => raw(path, body, wrong)))
      expect(answers.map(({ status }) => status)).toEqual([401, 401, 401])
      using strangers = new RemoteReaders({ secret: undefined, logger })
      await expect(strangers.connect({ instance: 'a', endpoint: server.address }).copies()).rejects.toThrow('401')
    },
  )

  test.each([
    ['not JSON', READ_PATH, '{'],
    ['no list', READ_PATH, '{}'],
    ['null', READ_PATH, '[null]'],
    ['no ids', READ_PATH, '[{"partition":0,"deviceIds":[]}]'],
    ['ids that are no text', READ_PATH, '[{"partition":0,"deviceIds":[1]}]'],
    ['no partition', READ_PATH, '[{"partition":-1,"deviceIds":["x"]}]'],
    ['too many ids', READ_PATH, JSON.stringify([{ partition: 0, deviceIds: Array(129).fill('x') }])],
    [
      'too many ids in all',
      READ_PATH,
      JSON.stringify(Array.from({ length: 17 }, () => ({ partition: 0, deviceIds: Array(128).fill('x') }))),
    ],
    ['no limit', LIST_PATH, '{"partition":0}'],
    ['a large limit', LIST_PATH, '{"partition":0,"limit":1001}'],
    ['null for a list', LIST_PATH, 'null'],
    ['no position', PAST_PATH, '{"deviceId":"x","withinMs":1}'],
    ['no offset', PAST_PATH, '{"position":{"partition":0},"deviceId":"x","withinMs":1}'],
    ['no device', PAST_PATH, '{"position":{"partition":0,"offset":1},"withinMs":1}'],
    ['a long hold', PAST_PATH, '{"position":{"partition":0,"offset":1},"deviceId":"x","withinMs":2001}'],
  ])('refuses %s', async (_, path, body) => {
    expect(await raw(path, body)).toMatchObject({ status: 400 })
  })

  test('refuses a body over its bound', async () => {
    expect(await raw(READ_PATH, 'x'.repeat(MAX_REQUEST_BYTES + 1))).toMatchObject({ status: 413 })
  })

  test('answers /livez without the secret, on one connection as often as it is asked', async () => {
    const [host, port] = server.address.split(':') as [string, string]
    const socket = connect({ host, port: Number(port) })
    try {
      for (let i = 0; i < 3; i++) {
        socket.write('GET /livez HTTP/1.1\r\nHost: peer\r\n\r\n')
        expect(String((await once(socket, 'data'))[0])).toMatch(/^HTTP\/1\.1 200 OK\r\n/)
      }
    } finally {
      socket.destroy()
    }
  })

  test('says what makes it not ready', async () => {
    expect((await raw('/readyz')).status).toBe(200)
    await using other = await serve(undefined, ['not in the group yet'])
    const response = await fetch(`http://${other.address}/readyz`)
    expect({ status: response.status, body: await response.json() }).toEqual({
      status: 503,
      body: { status: 'not ready', problems: ['not in the group yet'] },
    })
    expect((await raw('/metrics')).status).toBe(200)
    expect((await raw('/other')).status).toBe(404)
  })

  test('another kind of server is taken for a processor that cannot answer', async () => {
    const other = createServer((_, response) => response.end('<html>')).listen(0, '127.0.0.1')
    await once(other, 'listening')
    try {
      const reader = remote(`127.0.0.1:${(other.address() as AddressInfo).port}`)
      await expect(reader.getMany(0, ['x'])).rejects.toThrow(UnavailableError)
      await expect(reader.list(0, undefined, 1)).rejects.toThrow(UnavailableError)
      await expect(reader.copies()).rejects.toThrow(UnavailableError)
    } finally {
      other.close()
      other.closeAllConnections()
    }
  })
})
