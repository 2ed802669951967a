import { once } from 'node:events'
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net'
import { addressOf } from '../../../../processor/contract/address.ts'
import { METADATA } from '../../../../processor/log/kafka/protocol/metadata.ts'
import { WireWriter } from '../../../../processor/log/kafka/protocol/wire.ts'

const CORRELATION_ID_AT = 8
const SASL_HANDSHAKE = 17

/** The answer to `request`. */
export function answerTo(request: Buffer, body: Buffer): Buffer {
  const correlationId = request.subarray(CORRELATION_ID_AT, CORRELATION_ID_AT + 4)
  const size = new WireWriter().int32(correlationId.length + body.length).finish()
  return Buffer.concat([size, correlationId, body])
}

/** The answer to ApiVersions of a broker whose Metadata has versions from 0 to `metadata`. */
export function versions(metadata: number): Buffer {
  const writer = new WireWriter().int16(0).int32(2)
  for (const [apiKey, max] of [
    [METADATA, metadata],
    [SASL_HANDSHAKE, 1],
  ] as const) {
    writer.int16(apiKey).int16(0).int16(max)
  }
  return writer.int32(0).finish()
}

/** A server that answers the first request over a connection, ApiVersions, with `first`, and leaves the others to `next`. */
export async function scriptedBroker(
  first: Buffer,
  next: (socket: Socket, request: Buffer) => void,
  host = '127.0.0.1',
): Promise<{ server: Server; host: string; port: number; address: string }> {
  const server = createServer((socket) => {
    socket.on('error', () => {})
    socket.once('data', (request) => {
      socket.write(answerTo(request, first))
      socket.on('data', (further) => next(socket, further))
    })
  }).listen(0, host)
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  return { server, host, port, address: addressOf({ host, port }) }
}
