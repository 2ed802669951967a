import { once } from 'node:events'
import { type AddressInfo, createServer, type Socket } from 'node:net'
import { type Packet, parser } from 'mqtt-packet'
import { describe, expect, onTestFinished, test } from 'vitest'
import { Ledger } from '../../simulators/load/ledger.ts'
import { drain, openConnections, publish } from '../../simulators/load/load.ts'

const CONNACK = [0x20, 2, 0, 0]
const REFUSED = [0x20, 2, 0, 3]
const puback = (packetId: number) => [0x40, 2, packetId >> 8, packetId & 0xff]

/** A broker that answers each packet with the bytes that `answer` gives, which is told how many connections came. */
async function brokerThat(answer: (packet: Packet, connection: number) => readonly number[]): Promise<number> {
  let connections = 0
  const sockets = new Set<Socket>()
  const server = createServer((socket) => {
    const connection = ++connections
    sockets.add(socket)
    const packets = parser()
    packets.on('packet', (packet) => socket.write(Buffer.from(answer(packet, connection))))
    socket.on('data', (chunk) => packets.parse(chunk))
    socket.on('error', () => undefined)
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  onTestFinished(async () => {
    for (const socket of sockets) socket.destroy()
    await once(server.close(), 'close')
  })
  return (server.address() as AddressInfo).port
}

/** Twenty messages of one connection that is made anew when it is lost, all acknowledged in the end. */
async function loadOn(port: number): Promise<Ledger> {
  const ledger = new Ledger(1)
  const senders = { host: '127.0.0.1', port, prefix: 'load', connections: 1, devices: 1, window: 4 }
  const connections = openConnections({ ...senders, reconnect: () => 0 }, 20, ledger)
  onTestFinished(() => connections.forEach((connection) => connection.destroy()))
  await connections[0]?.opened
  await publish({ ratePerSecond: 1_000, seconds: Infinity }, connections, ledger.failure.signal)
  await drain(connections, ledger.failure.signal)
  return ledger
}

describe('what a broker may not answer is told, and nothing counts as acknowledged for it', () => {
  test.each<[string, (packetId: number) => readonly number[], RegExp]>([
    ['a packet id that is not under way', (id) => puback(id + 7), /it sent 40020008 where PUBACK 1 was due/],
    ['an acknowledgement twice', (id) => [...puback(id), ...puback(id)], /it sent 40020001 where /],
    [
      'one of a message that was not sent',
      (id) => [1, 2, 3, 4, 5].flatMap((n) => puback(id - 1 + n)),
      / where nothing/,
    ],
    ['another packet', () => [0xd0, 0, 0x40, 2], /it sent d0004002 where PUBACK 1 was due/],
  ])('%s', async (_, wrong, told) => {
    const port = await brokerThat((packet, connection) => {
      if (packet.cmd === 'connect') return CONNACK
      const { messageId = 0 } = packet
      return connection === 1 && messageId === 1 ? wrong(messageId) : puback(messageId)
    })
    const ledger = await loadOn(port)
    expect(ledger).toMatchObject({ violations: 1, refusals: 0, published: 20, count: 20 })
    expect(ledger.violation).toEqual([expect.stringMatching(told)])
  })

  test('a CONNECT', async () => {
    const port = await brokerThat((packet, connection) => {
      if (packet.cmd === 'connect') return connection === 1 ? puback(1) : CONNACK
      return puback(packet.messageId ?? 0)
    })
    const ledger = await loadOn(port)
    expect(ledger.violation).toEqual([expect.stringContaining('it sent 40020001 where CONNACK was due')])
  })
})

test('a connection that is refused is counted, and made anew', async () => {
  const port = await brokerThat((packet, connection) => {
    if (packet.cmd === 'connect') return connection === 1 ? REFUSED : CONNACK
    return puback(packet.messageId ?? 0)
  })
  const ledger = await loadOn(port)
  expect(ledger).toMatchObject({ refusals: 1, violations: 0, disconnects: 1, count: 20 })
})
