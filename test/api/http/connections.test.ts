import { once } from 'node:events'
import { createServer, type Server, type ServerResponse } from 'node:http'
import { type AddressInfo, connect, type Socket } from 'node:net'
import { text } from 'node:stream/consumers'
import { expect, onTestFinished, test } from 'vitest'
import { Connections } from '../../../api/http/connections.ts'

/** A server whose requests are answered by the test, by path. */
class Answered {
  readonly server: Server
  readonly connections: Connections
  readonly #responses = new Map<string, (response: ServerResponse) => void>()

  constructor() {
    this.server = createServer((request, response) => this.#responses.get(request.url as string)?.(response))
    this.connections = new Connections(this.server)
    // A connection that nobody closes stays.
    this.server.keepAliveTimeout = 0
    onTestFinished(() => this.server.closeAllConnections())
  }

  async connect(): Promise<Socket> {
    if (!this.server.listening) await once(this.server.listen(0, '127.0.0.1'), 'listening')
    const socket = connect((this.server.address() as AddressInfo).port, '127.0.0.1')
    await once(socket, 'connect')
    return socket
  }

  asked(path: string): Promise<ServerResponse> {
    return new Promise((resolve) => this.#responses.set(path, resolve))
  }

  /** As a server that ends does: it resolves when no connection is left. */
  async close(): Promise<void> {
    this.connections.keepNone()
    const closed = once(this.server, 'close')
    this.server.close()
    await closed
  }
}

const get = (path: string) => `GET ${path} HTTP/1.1\r\nHost: x\r\n\r\n`

test('a close ends connections without a request while answers are under way on others', async () => {
  const answered = new Answered()
  const [busy, idle] = [await answered.connect(), await answered.connect()]
  const first = answered.asked('/first')
  idle.write(get('/first'))
  ;(await first).end()
  await once(idle, 'data')
  const asked = answered.asked('/busy')
  busy.write(get('/busy'))
  const response = await asked
  const ended = once(idle, 'close')
  const closed = answered.close()
  idle.resume()
  await ended
  const told = text(busy)
  response.end('all of it')
  expect(await told).toMatch(/^HTTP\/1\.1 200 .*connection: close.*all of it/is)
  await closed
})

test.each([
  ['none of which has begun', false],
  ['the first of which has begun', true],
])('a close waits for all answers of a pipeline, %s', async (_, begun) => {
  const answered = new Answered()
  const asked = [answered.asked('/one'), answered.asked('/two')]
  const socket = await answered.connect()
  socket.write(get('/one') + get('/two'))
  const [one, two] = (await Promise.all(asked)) as [ServerResponse, ServerResponse]
  if (begun) one.write('begun, ')
  const closed = answered.close()
  const told = text(socket)
  two.end('the second')
  one.end('the first')
  expect(await told).toMatch(/the first.*the second/s)
  await closed
})

test('a close waits for an answer that a client has not taken yet', async () => {
  const answered = new Answered()
  const socket = await answered.connect()
  const asked = answered.asked('/large')
  socket.write(get('/large'))
  const large = 'x'.repeat(16 * 1024 * 1024)
  ;(await asked).end(large)
  const closed = answered.close()
  expect((await text(socket)).length).toBeGreaterThan(large.length)
  await closed
})
