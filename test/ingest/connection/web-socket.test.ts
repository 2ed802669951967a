import { EventEmitter, once } from 'node:events'
import { PassThrough } from 'node:stream'
import { generate, type Packet, parser } from 'mqtt-packet'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { WebSocket } from 'ws'
import { Incomplete } from '../../../ingest/connection/pressure.ts'
import { WebSocketStream } from '../../../ingest/connection/web-socket.ts'
import { DEFAULT_LIMITS } from '../../../ingest/limits.ts'
import { openIngest, publication, RawClient, unharmed, WAIT } from '../fixture.ts'

const TOPIC = 'devices/truck-17/telemetry'
const CONNECT = generate({ cmd: 'connect', clientId: '', clean: true })
const MESSAGE = 2
const CLOSE = 8
const RESERVED = 3

/** With a mask of zeros, which changes nothing. */
function frame(opcode: number, body: Buffer): Buffer {
  const extended = body.length < 126 ? 0 : body.length < 65_536 ? 2 : 8
  const header = Buffer.alloc(6 + extended)
  header[0] = opcode | 0x80
  header[1] = 0x80 | (extended === 0 ? body.length : extended === 2 ? 126 : 127)
  if (extended > 0) header.writeUIntBE(body.length, 2 + Math.max(0, extended - 6), Math.min(extended, 6))
  return Buffer.concat([header, body])
}

async function opened(url: string, protocols = ['mqtt']): Promise<WebSocket> {
  const socket = new WebSocket(url.replace('mqtt', 'ws'), protocols)
  onTestFinished(() => socket.terminate())
  await once(socket, 'open')
  return socket
}

async function connected(url: string): Promise<{ socket: WebSocket; packets: Packet[]; closed: Promise<unknown> }> {
  const socket = await opened(url)
  const packets: Packet[] = []
  const reader = parser()
  reader.on('packet', (packet) => packets.push(packet))
  socket.on('message', (data) => reader.parse(data as Buffer))
  const closed = once(socket, 'close')
  socket.send(CONNECT)
  await vi.waitFor(() => expect(packets.length).toBe(1), WAIT)
  return { socket, packets, closed }
}

/** A WebSocket of which a test writes each byte. */
async function upgraded(port: number): Promise<RawClient> {
  const client = new RawClient(port)
  client.socket.write(
    'GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n' +
      'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n',
  )
  await once(client.socket, 'data')
  return client
}

describe('WebSocket', () => {
  it('wants the subprotocol mqtt [MQTT-6.0.0-3]', async () => {
    const { url } = await openIngest()
    await expect(opened(url, [])).rejects.toThrow('400')
    await expect(opened(url, ['amqp'])).rejects.toThrow('400')
    expect((await opened(`${url}/any/path?x`, ['x', 'mqtt'])).protocol).toBe('mqtt')
  })

  it('closes at a text frame [MQTT-6.0.0-1], and at a frame too large', async () => {
    const fixture = await openIngest({ maxPacketBytes: 1_000 })
    const witness = await RawClient.open(fixture.ingest.port)
    const text = await opened(fixture.url)
    text.send('hello')
    await once(text, 'close')
    const large = await opened(fixture.url)
    large.send(Buffer.alloc(5_000))
    await once(large, 'close')
    await unharmed(fixture, witness)
  })

  it('is read to its end when the client closes in good order', async () => {
    const { ingest, log } = await openIngest()
    const will = { topic: `${TOPIC}/will`, payload: Buffer.from('1'), qos: 1, retain: false } as const
    const connect = generate({ cmd: 'connect', clientId: 'truck-17', clean: true, will })
    const messages = Array.from({ length: 100 }, (_, i) => publication(TOPIC, String(i), 1, i + 1))
    const said = Buffer.concat([connect, ...messages, generate({ cmd: 'disconnect' })])
    const client = await upgraded(ingest.port)
    client.write(Buffer.concat([frame(MESSAGE, said), frame(CLOSE, Buffer.from([0x03, 0xe8]))]))
    const payloads = () => log.durable.flatMap(({ record }) => (record.headers?.kind ? [] : [String(record.value)]))
    await vi.waitFor(() => expect(payloads()).toHaveLength(messages.length), WAIT)
    await client.end()
    await ingest[Symbol.asyncDispose]()
    expect(payloads()).toEqual(messages.map((_, i) => String(i)))
  })

  it('stays open after CONNECT, though nothing is said', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
    onTestFinished(() => void vi.useRealTimers())
    const { ingest, url } = await openIngest()
    const silent = new RawClient(ingest.port)
    const { socket, closed } = await connected(url)
    await vi.advanceTimersByTimeAsync(DEFAULT_LIMITS.connectTimeoutMs)
    await silent.end()
    socket.ping()
    await Promise.race([once(socket, 'pong'), closed])
    expect(socket.readyState).toBe(WebSocket.OPEN)
  })

  it('tells a browser what the port is', async () => {
    const { url } = await openIngest()
    const response = await fetch(url.replace('mqtt', 'http'))
    expect(response.status).toBe(426)
    // RFC 9110 section 7.8.
    expect([response.headers.get('upgrade'), response.headers.get('connection')]).toEqual([
      'websocket',
      'upgrade, close',
    ])
    expect(await response.text()).toContain('MQTT')
  })
})

describe('WebSocket messages', () => {
  it('that never end close the connection whose began first, when all together are too many', async () => {
    const fixture = await openIngest({ maxIncompleteBytes: 100_000 })
    const witness = await RawClient.open(fixture.ingest.port)
    const first = await opened(fixture.url)
    const closed = once(first, 'close')
    first.send(Buffer.alloc(60_000), { fin: false })
    first.ping()
    await once(first, 'pong')
    const second = await opened(fixture.url)
    second.send(Buffer.alloc(60_000), { fin: false })
    await closed
    expect(second.readyState).toBe(WebSocket.OPEN)
    await unharmed(fixture, witness)
  })

  it('that wait whole count in what all connections share, until they are handed on', async () => {
    const { url, log, metric } = await openIngest({ maxHeldBytes: 100_000, maxIncompleteBytes: 1_500_000 })
    const message = Buffer.concat([1, 2, 3, 4].map((id) => publication(TOPIC, Buffer.alloc(250_000, 'x'), 1, id)))
    log.hold = true
    const first = await connected(url)
    first.socket.send(message)
    await vi.waitFor(async () => expect(await metric('held_messages')).toBe(1), WAIT)
    const second = await connected(url)
    second.socket.send(message)
    await vi.waitFor(
      async () => expect(await metric('closes_total', { reason: 'too many incomplete packets' })).toBe(1),
      WAIT,
    )
    await first.closed
    log.release()
    await vi.waitFor(
      () => expect(second.packets.map(({ messageId }) => messageId)).toEqual([undefined, 1, 2, 3, 4]),
      WAIT,
    )
    const third = await connected(url)
    third.socket.send(Buffer.alloc(1_400_000), { fin: false })
    third.socket.ping()
    await once(third.socket, 'pong')
    expect(second.socket.readyState).toBe(WebSocket.OPEN)
    expect(third.socket.readyState).toBe(WebSocket.OPEN)
  })

  it('that begin in the chunk that ends another count from there on', async () => {
    const { ingest, metric } = await openIngest({ maxIncompleteBytes: 100_000 })
    const clients: RawClient[] = []
    for (let i = 0; i < 2; i++) {
      const client = await upgraded(ingest.port)
      client.write(Buffer.concat([frame(MESSAGE, CONNECT), frame(MESSAGE, Buffer.alloc(900_000)).subarray(0, 60_000)]))
      clients.push(client)
    }
    await clients[0]?.end()
    expect(await metric('closes_total', { reason: 'too many incomplete packets' })).toBe(1)
    expect(clients[1]?.closed).toBe(false)
  })

  it('count no more once they are dropped', async () => {
    const { ingest, url } = await openIngest({ maxIncompleteBytes: 100_000 })
    const { socket } = await connected(url)
    socket.send(Buffer.alloc(60_000), { fin: false })
    const broken = await upgraded(ingest.port)
    broken.write(frame(RESERVED, Buffer.alloc(1)))
    await once(broken.socket, 'data')
    broken.write(frame(MESSAGE, Buffer.alloc(900_000)))
    broken.socket.end()
    await broken.end()
    socket.ping()
    await once(socket, 'pong')
    expect(socket.readyState).toBe(WebSocket.OPEN)
  })

  it('leave nothing that counts when they end with their connection', () => {
    const _receiver = { _bufferedBytes: 50, _messageLength: 0 }
    const webSocket = Object.assign(new EventEmitter(), { readyState: WebSocket.OPEN, terminate() {}, _receiver })
    const [socket, incomplete, givenUp] = [new PassThrough(), new Incomplete(1_000), vi.fn()]
    const stream = new WebSocketStream(webSocket as unknown as WebSocket, socket, incomplete, givenUp)
    socket.emit('data', Buffer.alloc(50))
    stream.destroy()
    incomplete.hold({ giveUp() {} }, 1_000)
    expect(givenUp).not.toHaveBeenCalled()
  })
})
