import { once } from 'node:events'
import { type AddressInfo, createServer, type Socket } from 'node:net'
import pino from 'pino'
import { expect, test, vi } from 'vitest'
import { Network } from '../../processor/log/kafka-broker.ts'

const CORRELATION_ID_AT = 8
/** CLUSTER_AUTHORIZATION_FAILED */
const REFUSED = 31

/** Answers the first request, ApiVersions, with an error. */
function refuse(socket: Socket): void {
  socket.on('error', () => {})
  socket.once('data', (request) => {
    const response = Buffer.alloc(18)
    response.writeInt32BE(response.length - 4)
    request.copy(response, 4, CORRELATION_ID_AT, CORRELATION_ID_AT + 4)
    response.writeInt16BE(REFUSED, 8)
    socket.write(response)
  })
}

test('a connection that a broker refuses leaves neither its socket nor its timer behind', async () => {
  const started = vi.spyOn(globalThis, 'setInterval')
  const ended = vi.spyOn(globalThis, 'clearInterval')
  const server = createServer(refuse).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const network = new Network('test', {}, pino({ enabled: false }))
  try {
    const accepted = once(server, 'connection') as Promise<[Socket]>
    const connecting = network.connect('127.0.0.1', (server.address() as AddressInfo).port)
    await expect(connecting).rejects.toMatchObject({ type: 'CLUSTER_AUTHORIZATION_FAILED' })
    const [socket] = await accepted
    await vi.waitFor(() => expect(socket.readableEnded || socket.destroyed).toBe(true))
    const intervals = started.mock.results.map(({ value }) => value as NodeJS.Timeout)
    const cleared = ended.mock.calls.map(([timer]) => timer)
    expect(intervals.length).toBeGreaterThan(0)
    expect(intervals.filter((interval) => !cleared.includes(interval))).toEqual([])
  } finally {
    vi.restoreAllMocks()
    network.close()
    server.close()
  }
})
