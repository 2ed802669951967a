import { assert, property, uint8Array } from 'fast-check'
import { generate, type Packet } from 'mqtt-packet'
import { describe, expect, it } from 'vitest'
import { FilterList, type Header, readHeader, SUBSCRIBE, UNSUBSCRIBE } from '../../../ingest/connection/framing.ts'
import { publication } from '../fixture.ts'

function read(bytes: number[] | Buffer, max = 1_000_000): string | Header {
  const header: Header = { type: 0, qos: 0, bytes: 0, length: 0 }
  const state = readHeader(Buffer.from(bytes), 0, max, header)
  return state === 'whole' ? header : state
}

describe('fixed headers', () => {
  it('reads a PUBLISH', () => {
    const packet = publication('a/b', 'x'.repeat(300), 1, 7)
    expect(read(packet)).toEqual({ type: 3, qos: 1, bytes: 3, length: packet.length - 3 })
  })

  it('waits for the whole header and the first two bytes', () => {
    const packet = publication('a/b', 'x'.repeat(300), 1, 7)
    for (let bytes = 1; bytes < 5; bytes++) expect(read(packet.subarray(0, bytes))).toBe('incomplete')
    expect(read([0xc0])).toBe('incomplete')
    expect(read([0xc0, 0])).toMatchObject({ type: 12, length: 0 })
  })

  it.each([
    ['a length of five bytes', [0x30, 0x80, 0x80, 0x80, 0x80, 0x01]],
    ['QoS 3', [0x36, 5, 0, 1, 0x61, 0, 1]],
    ['DUP at QoS 0', [0x38, 3, 0, 1, 0x61]],
    ['an empty topic', [0x30, 3, 0, 0, 0x61]],
    ['a topic longer than the packet', [0x30, 3, 0, 2, 0x61]],
    ['no room for the packet id', [0x32, 4, 0, 1, 0x61, 0]],
    ['packet id 0', [0x82, 6, 0, 0, 0, 1, 0x61, 0]],
    ['a SUBSCRIBE without a filter', [0x82, 2, 0, 1]],
    ['an UNSUBSCRIBE without a filter', [0xa2, 2, 0, 1]],
    ['a PUBACK with more than an id', [0x40, 3, 0, 1, 0]],
    ['a PINGREQ with a body', [0xc0, 1, 0]],
    ['a DISCONNECT with a body', [0xe0, 1, 0]],
    ['a CONNACK from a client', [0x20, 2, 0, 0]],
    ['a DISCONNECT with flags', [0xe1, 0]],
    ['a PINGREQ with flags', [0xc2, 0]],
    ['a PUBACK with flags', [0x42, 2, 0, 1]],
    ['a PUBREL without its flags', [0x60, 2, 0, 1]],
    ['a SUBSCRIBE with more than its flags', [0x8a, 6, 0, 1, 0, 1, 0x61, 0]],
    ['an UNSUBSCRIBE without its flags', [0xa0, 5, 0, 1, 0, 1, 0x61]],
    ['packet type 0', [0x00, 0]],
    ['packet type 15', [0xf0, 0]],
  ])('%s is malformed', (_name, bytes) => {
    expect(read(bytes)).toBe('malformed')
  })

  it('reads what MQTT.js sends', () => {
    for (const packet of [
      { cmd: 'connect', clientId: 'x' },
      { cmd: 'puback', messageId: 1 },
      { cmd: 'pubrec', messageId: 1 },
      { cmd: 'pubrel', messageId: 1 },
      { cmd: 'pubcomp', messageId: 1 },
      { cmd: 'subscribe', messageId: 1, subscriptions: [{ topic: 'a', qos: 0 }] },
      { cmd: 'unsubscribe', messageId: 1, unsubscriptions: ['a'] },
      { cmd: 'pingreq' },
      { cmd: 'disconnect' },
    ] as const)
      expect(read(generate(packet as unknown as Packet))).not.toBeTypeOf('string')
  })

  it('refuses a packet by what its header announces', () => {
    expect(read([0x30, 0xc1, 0x84, 0x3d])).toBe('oversized')
    expect(read(generate({ cmd: 'pingreq' }), 0)).toMatchObject({ type: 12 })
  })

  it('reads whatever comes', () => {
    assert(
      property(uint8Array({ minLength: 1, maxLength: 12 }), (bytes) => {
        const header = read(Buffer.from(bytes))
        if (typeof header !== 'string') expect(header.bytes).toBeLessThanOrEqual(bytes.length)
      }),
    )
  })
})

it('counts filters in pieces of any size', () => {
  const filters = ['a', 'b/c', 'x'.repeat(300)]
  const subscriptions = filters.map((topic) => ({ topic, qos: 1 as const }))
  for (const [type, packet] of [
    [SUBSCRIBE, generate({ cmd: 'subscribe', messageId: 1, subscriptions })],
    [UNSUBSCRIBE, generate({ cmd: 'unsubscribe', messageId: 1, unsubscriptions: filters })],
  ] as const) {
    const body = packet.subarray(3)
    for (const size of [1, 2, 5, body.length]) {
      const list = new FilterList(type)
      for (let at = 0; at < body.length; at += size) list.read(body, at, Math.min(at + size, body.length))
      expect(list.count).toBe(3)
    }
  }
})
