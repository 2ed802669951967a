import { once } from 'node:events'
import { Agent, createServer, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { Exchange, LateError, type UnderWay } from '../../../api/reader/exchange.ts'
import { UnavailableError } from '../../../processor/contract/errors.ts'
import { silent } from '../stage.ts'

/** Shorter than what a request may wait for a connection. */
const ANSWER_WITHIN_MS = 800
const QUEUED_MS = 4_000
const GIVEN_UP_MS = 5_000
const SILENCE_MS = 5_000
const MAX_QUEUED = 1_024

const pass = (ms: number) => vi.advanceTimersByTimeAsync(ms)

/** An endpoint behind one connection, which answers when it is told to; the clock stands still but for `pass`. */
describe('an exchange whose connections are all taken', () => {
  let server: Server
  let agent: Agent
  let exchange: Exchange

  beforeEach(async () => {
    server = createServer().listen(0, '127.0.0.1')
    await once(server, 'listening')
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] })
    agent = new Agent({ keepAlive: true, maxSockets: 1 })
    const endpoint = `127.0.0.1:${(server.address() as AddressInfo).port}`
    exchange = new Exchange(endpoint, agent, { secret: undefined, logger: silent, answerWithinMs: ANSWER_WITHIN_MS })
  })

  afterEach(() => {
    vi.useRealTimers()
    agent.destroy()
    server.closeAllConnections()
    server.close()
  })

  const begin = (text: string, patient = false): UnderWay<string> =>
    exchange.begin({ path: '/', body: text, decode: (body) => `${text}: ${body.toString()}`, patient })

  /** The next request as it comes in. */
  const asked = async (): Promise<ServerResponse> => (await once(server, 'request'))[1] as ServerResponse

  it('does not count the wait for one as lateness', async () => {
    const first = asked()
    const answered = begin('a').answer
    const waiting = begin('b').answer
    const response = await first
    await pass(ANSWER_WITHIN_MS - 100)
    const next = asked()
    response.end('1')
    expect(await answered).toBe('a: 1')
    const later = await next
    await pass(ANSWER_WITHIN_MS - 100)
    later.end('2')
    expect(await waiting).toBe('b: 2')
    expect(exchange.silence).toBeUndefined()
  })

  it('counts lateness from then on', async () => {
    const first = asked()
    const answered = begin('a').answer
    const waiting = begin('b').answer
    waiting.catch(() => undefined)
    const response = await first
    await pass(ANSWER_WITHIN_MS - 100)
    const next = asked()
    response.end('1')
    await answered
    const late = await next
    await pass(ANSWER_WITHIN_MS)
    await expect(waiting).rejects.toThrow(`longer than ${ANSWER_WITHIN_MS} ms`)
    expect(exchange.silence).toBeInstanceOf(LateError)
    late.end('2')
  })

  it('tells those who wait, but for the patient, when the endpoint is late', async () => {
    const first = asked()
    const late = begin('a')
    const response = await first
    const [waiting, patient] = [begin('b'), begin('c', true)]
    const failed = Promise.allSettled([late.answer, waiting.answer])
    await pass(ANSWER_WITHIN_MS)
    expect(await failed).toMatchObject([{ reason: expect.any(LateError) }, { reason: expect.any(LateError) }])
    await waiting.over
    const next = asked()
    response.end('1')
    ;(await next).end('2')
    expect(await patient.answer).toBe('c: 2')
    expect(exchange.silence).toBeUndefined()
  })

  it('gives up what waits for too long, and blames nobody', async () => {
    const first = asked()
    const held = begin('a', true)
    const response = await first
    const waiting = begin('b')
    const failed = Promise.allSettled([waiting.answer])
    await pass(QUEUED_MS)
    expect(await failed).toMatchObject([{ reason: { message: expect.stringContaining(`${QUEUED_MS} ms`) } }])
    await waiting.over
    expect(exchange.silence).toBeUndefined()
    response.end('1')
    expect(await held.answer).toBe('a: 1')
    // The place of what was given up is nobody's.
    await held.over
    const next = asked()
    const another = begin('c').answer
    ;(await next).end('3')
    expect(await another).toBe('c: 3')
  })

  it('is silent for its time, though what it does not answer is given up before', async () => {
    const first = asked()
    const { answer, over } = begin('a')
    const late = expect(answer).rejects.toThrow(LateError)
    await first
    await pass(ANSWER_WITHIN_MS)
    await late
    await pass(GIVEN_UP_MS - ANSWER_WITHIN_MS)
    await over
    expect(exchange.silence).toBeInstanceOf(LateError)
    await pass(ANSWER_WITHIN_MS + SILENCE_MS - GIVEN_UP_MS)
    expect(exchange.silence).toBeUndefined()
  })

  it('asks again when a connection was closed as it was used again', async () => {
    const first = asked()
    const answered = begin('a').answer
    ;(await first).end('1')
    await answered
    const second = asked()
    const repeated = begin('b').answer
    const broken = await second
    server.once('request', (_, response) => response.end('2'))
    broken.destroy()
    expect(await repeated).toBe('b: 2')
  })

  it('lets no more than so many wait', async () => {
    server.on('request', (_, response) => response.end('1'))
    const asking = Array.from({ length: 1 + MAX_QUEUED }, () => begin('a').answer)
    await expect(begin('b').answer).rejects.toThrow(UnavailableError)
    expect(exchange.silence).toBeUndefined()
    expect(new Set(await Promise.all(asking))).toEqual(new Set(['a: 1']))
  })
})
