import { once } from 'node:events'
import { type AddressInfo, createServer, type Socket } from 'node:net'
import pino from 'pino'
import { Registry } from 'prom-client'
import { expect, test, vi } from 'vitest'
import { KafkaLog } from '../../processor/log/kafka.ts'
import { Network } from '../../processor/log/kafka-broker.ts'
import { WireWriter } from '../../processor/log/kafka-wire.ts'

const CORRELATION_ID_AT = 8
/** CLUSTER_AUTHORIZATION_FAILED */
const REFUSED = 31

const SASL_HANDSHAKE = 17
const METADATA = 3

/** Answers the first request, ApiVersions, with `body`; closes the connection over which more is asked. */
function answer(body: Buffer): (socket: Socket) => void {
  return (socket) => {
    socket.on('error', () => {})
    socket.once('data', (request) => {
      const correlationId = request.subarray(CORRELATION_ID_AT, CORRELATION_ID_AT + 4)
      const size = new WireWriter().int32(correlationId.length + body.length).finish()
      socket.write(Buffer.concat([size, correlationId, body]))
      socket.once('data', () => socket.destroy())
    })
  }
}

const refuse = answer(new WireWriter().int16(REFUSED).int32(0).int32(0).finish())

/** As a broker does whose Metadata has versions from 0 to `metadata`. */
function versions(metadata: number): Buffer {
  const writer = new WireWriter().int16(0).int32(2)
  for (const [apiKey, max] of [
    [METADATA, metadata],
    [SASL_HANDSHAKE, 1],
  ] as const) {
    writer.int16(apiKey).int16(0).int16(max)
  }
  return writer.int32(0).finish()
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

test('a broker that is too old is refused by name, and not waited for', async () => {
  const server = createServer(answer(versions(11))).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = `127.0.0.1:${(server.address() as AddressInfo).port}`
  try {
    const opening = KafkaLog.open({
      brokers: [address],
      prefix: 'test',
      group: 'test',
      partitions: 1,
      logger: pino({ enabled: false }),
      registry: new Registry(),
    })
    await expect(opening).rejects.toMatchObject({
      code: 'LOG_MISMATCH',
      message: `the broker at ${address} cannot be used: Metadata 12 is needed, and it has 0 to 11; use Kafka 3.6 or newer`,
    })
  } finally {
    server.close()
  }
})
