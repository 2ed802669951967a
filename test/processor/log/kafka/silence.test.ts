import { once } from 'node:events'
import type { Server, Socket } from 'node:net'
import pino from 'pino'
import { afterEach, beforeEach, describe, expect, type MockInstance, test, vi } from 'vitest'
import { type BrokerConnection, Network, REQUEST_TIMEOUT_MS } from '../../../../processor/log/kafka/protocol/broker.ts'
import { METADATA, METADATA_VERSION } from '../../../../processor/log/kafka/protocol/metadata.ts'
import { Responses } from '../../../../processor/log/kafka/protocol/wire.ts'
import { answerTo, scriptedBroker, versions } from './scripted-broker.ts'

const LOOK_MS = 100
/** Of the time that a request has without a byte. */
const MOST_OF_IT_MS = REQUEST_TIMEOUT_MS - 2 * LOOK_MS
const ENDLESS_MS = 120_000 + REQUEST_TIMEOUT_MS
const HOUR_MS = 3_600_000
const LARGE = Buffer.alloc(100_000, 7)

let server: Server
let network: Network
let connection: BrokerConnection
/** What the broker was asked, and has not answered; it is done by the test. */
let asked: { socket: Socket; request: Buffer }[]
let whenAsked: () => void
let read: MockInstance<Responses['read']>

beforeEach(async () => {
  vi.useFakeTimers({ toFake: ['Date', 'performance', 'setInterval', 'clearInterval'] })
  asked = []
  whenAsked = () => {}
  read = vi.spyOn(Responses.prototype, 'read')
  const broker = await scriptedBroker(versions(METADATA_VERSION), (socket, request) => {
    asked.push({ socket, request })
    whenAsked()
  })
  server = broker.server
  network = new Network('test', {}, pino({ enabled: false }))
  connection = await network.connect(broker.host, broker.port)
})

afterEach(() => {
  network.close()
  server.close()
  vi.restoreAllMocks()
  vi.useRealTimers()
})

/** Has the broker asked once more; resolves when it is. */
async function ask(): Promise<{ answer: Promise<Buffer>; socket: Socket; request: Buffer }> {
  const { promise, resolve } = Promise.withResolvers<void>()
  whenAsked = resolve
  const answer = connection.send(METADATA, 'Metadata', METADATA_VERSION, [])
  answer.catch(() => {})
  await promise
  return { answer, ...(asked.at(-1) as { socket: Socket; request: Buffer }) }
}

/** Bytes that the client has read. */
function heard(): number {
  return read.mock.calls.reduce((sum, [bytes]) => sum + bytes, 0)
}

/** Resolves when the client has read them, or has given up. */
async function say(socket: Socket, bytes: Buffer): Promise<void> {
  const then = heard() + bytes.length
  socket.write(bytes)
  while (heard() < then && connection.alive) await new Promise((resolve) => setImmediate(resolve))
}

function pieces(bytes: Buffer, count: number): Buffer[] {
  const size = Math.ceil(bytes.length / count)
  return Array.from({ length: count }, (_, i) => bytes.subarray(i * size, (i + 1) * size))
}

/** For an hour, in which no timer runs; some have run before. */
function standStill(): void {
  vi.advanceTimersByTime(2 * LOOK_MS)
  const now = performance.now.bind(performance)
  vi.spyOn(performance, 'now').mockImplementation(() => now() + HOUR_MS)
}

describe('an answer of a broker', () => {
  test('that takes long is one, while its bytes come, and those behind it wait for it', async () => {
    const { answer, socket, request } = await ask()
    const behind = await ask()
    for (const piece of pieces(answerTo(request, LARGE), 5)) {
      vi.advanceTimersByTime(MOST_OF_IT_MS)
      await say(socket, piece)
    }
    expect(await answer).toEqual(LARGE)
    vi.advanceTimersByTime(MOST_OF_IT_MS)
    await say(socket, answerTo(behind.request, LARGE))
    expect(await behind.answer).toEqual(LARGE)
    expect(connection.alive).toBe(true)
  })

  test.each([0, 1])('is given up in the same time after %d of its bytes, and the connection with it', async (bytes) => {
    const { answer, socket, request } = await ask()
    if (bytes > 0) {
      vi.advanceTimersByTime(MOST_OF_IT_MS)
      await say(socket, answerTo(request, LARGE).subarray(0, bytes))
    }
    const closed = once(socket, 'close')
    vi.advanceTimersByTime(REQUEST_TIMEOUT_MS + 2 * LOOK_MS)
    await expect(answer).rejects.toMatchObject({ name: 'KafkaJSRequestTimeoutError' })
    socket.resume()
    await closed
    expect(connection.alive).toBe(false)
  })

  test('that never ends is given up', async () => {
    const { answer, socket, request } = await ask()
    const steps = Math.floor(ENDLESS_MS / MOST_OF_IT_MS)
    const [last, ...others] = pieces(answerTo(request, LARGE), steps + 1) as [Buffer, ...Buffer[]]
    for (const piece of others) {
      vi.advanceTimersByTime(MOST_OF_IT_MS)
      await say(socket, piece)
    }
    expect(connection.alive).toBe(true)
    expect(last.length).toBeGreaterThan(0)
    vi.advanceTimersByTime(MOST_OF_IT_MS)
    await expect(answer).rejects.toMatchObject({ name: 'KafkaJSRequestTimeoutError' })
  })

  test('has its time for itself on a connection that is never idle', async () => {
    let { answer, socket, request } = await ask()
    for (let i = 0; i < 2 * (ENDLESS_MS / MOST_OF_IT_MS); i++) {
      const next = await ask()
      vi.advanceTimersByTime(MOST_OF_IT_MS)
      await say(socket, answerTo(request, Buffer.alloc(8)))
      await answer
      ;({ answer, socket, request } = next)
    }
    expect(connection.alive).toBe(true)
  })

  test('that does not come is given up in the same time when the clock is set back', async () => {
    const first = await ask()
    await say(first.socket, answerTo(first.request, LARGE))
    vi.advanceTimersByTime(LOOK_MS)
    vi.setSystemTime(Date.now() - HOUR_MS)
    const { answer } = await ask()
    vi.advanceTimersByTime(REQUEST_TIMEOUT_MS + 2 * LOOK_MS)
    await expect(answer).rejects.toMatchObject({ name: 'KafkaJSRequestTimeoutError' })
  })

  test('that is on its way is waited for as long when the clock is set ahead', async () => {
    const { answer, socket, request } = await ask()
    vi.advanceTimersByTime(LOOK_MS)
    vi.setSystemTime(Date.now() + HOUR_MS)
    vi.advanceTimersByTime(MOST_OF_IT_MS - LOOK_MS)
    expect(connection.alive).toBe(true)
    await say(socket, answerTo(request, LARGE))
    expect(await answer).toEqual(LARGE)
  })

  test('that is on its way is given up in the same time when the clock is set back', async () => {
    const { answer } = await ask()
    vi.advanceTimersByTime(LOOK_MS)
    vi.setSystemTime(Date.now() - HOUR_MS)
    vi.advanceTimersByTime(REQUEST_TIMEOUT_MS + 2 * LOOK_MS)
    await expect(answer).rejects.toMatchObject({ name: 'KafkaJSRequestTimeoutError' })
  })

  test('that came while this process stood still is read', async () => {
    const { answer, socket, request } = await ask()
    standStill()
    vi.advanceTimersByTime(LOOK_MS)
    expect(connection.alive).toBe(true)
    await say(socket, answerTo(request, LARGE))
    expect(await answer).toEqual(LARGE)
  })

  test('that did not come is given up in the same time after this process stood still', async () => {
    const { answer } = await ask()
    standStill()
    vi.advanceTimersByTime(REQUEST_TIMEOUT_MS + 3 * LOOK_MS)
    await expect(answer).rejects.toMatchObject({ name: 'KafkaJSRequestTimeoutError' })
  })
})
