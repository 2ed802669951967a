import { PassThrough } from 'node:stream'
import { setImmediate as turn } from 'node:timers/promises'
import { generate } from 'mqtt-packet'
import { Registry } from 'prom-client'
import { describe, expect, it, vi } from 'vitest'
import { Connection } from '../../../ingest/connection/connection.ts'
import { Pressure } from '../../../ingest/connection/pressure.ts'
import { DEFAULT_LIMITS } from '../../../ingest/limits.ts'
import { IngestMetrics } from '../../../ingest/metrics.ts'
import { publication } from '../fixture.ts'

const DISCONNECT = Buffer.from([0xe0, 0])

/** A connection after CONNACK, and the bytes it has handed on. */
function admitted(pressure: Pressure): { connection: Connection; passed(): number } {
  const connection = new Connection(new PassThrough(), pressure)
  connection.receive(generate({ cmd: 'connect', clientId: 'x' }))
  connection.answered()
  connection.read()
  let bytes = 0
  const passed = (): number => {
    for (let chunk: Buffer | null = connection.read(); chunk !== null; chunk = connection.read()) bytes += chunk.length
    return bytes
  }
  return { connection, passed }
}

it('a connection is held back by its own acks, and by those of others who have the bytes of all', async () => {
  const pressure = new Pressure({ ...DEFAULT_LIMITS, maxHeldBytes: 100 }, new IngestMetrics(new Registry()))
  const [one, other] = [admitted(pressure), admitted(pressure)]
  const message = publication('devices/a/telemetry', 'x'.repeat(100), 1, 1)
  one.connection.receive(message)
  other.connection.receive(message)
  expect([one.passed(), other.passed()]).toEqual([message.length, 0])
  expect([one.connection.heldBack, other.connection.heldBack]).toEqual([true, true])
})

it('a connection that ends leaves nothing that counts as incomplete', () => {
  const pressure = new Pressure(DEFAULT_LIMITS, new IngestMetrics(new Registry()))
  const { connection } = admitted(pressure)
  connection.receive(publication('devices/a/telemetry', 'x'.repeat(100), 1, 1).subarray(0, 50))
  const givenUp = vi.spyOn(connection, 'giveUp')
  connection.destroy()
  pressure.incomplete.hold({ giveUp() {} }, DEFAULT_LIMITS.maxIncompleteBytes)
  expect(givenUp).not.toHaveBeenCalled()
})

describe('one turn of the event loop', () => {
  it.each([
    ['PINGREQ', Buffer.from([0xc0, 0]), 250],
    ['PUBACK', Buffer.from([0x40, 2, 0, 1]), 250],
    ['QoS 0 that aedes parses', publication('a', '1'), 250],
    ['SUBSCRIBE', generate({ cmd: 'subscribe', messageId: 1, subscriptions: [{ topic: 'a', qos: 0 }] }), 125],
  ])(
    'deals with a bounded number of packets of one piece, and with others in between: %s',
    async (_name, packet, most) => {
      const pressure = new Pressure(DEFAULT_LIMITS, new IngestMetrics(new Registry()))
      const flood = admitted(pressure)
      const other = admitted(pressure)
      await turn()
      flood.connection.receive(Buffer.concat(Array.from({ length: 10_000 }, () => packet)))
      other.connection.receive(Buffer.from([0xc0, 0]))
      let before = 0
      for (let turns = 0; before < 10_000 * packet.length; turns++) {
        const passed = flood.passed()
        expect(passed - before).toBeLessThanOrEqual(most * packet.length)
        before = passed
        if (turns === 3) expect(other.passed()).toBe(2)
        await turn()
      }
    },
  )

  it('deals with one UNSUBSCRIBE, and what follows it when that is answered', async () => {
    const one = admitted(new Pressure(DEFAULT_LIMITS, new IngestMetrics(new Registry())))
    const packet = generate({ cmd: 'unsubscribe', messageId: 1, unsubscriptions: ['a'] })
    one.connection.receive(packet.subarray(0, 3))
    one.connection.receive(Buffer.concat([packet.subarray(3), packet, DISCONNECT]))
    for (const bytes of [packet.length, 2 * packet.length, 2 * packet.length + DISCONNECT.length]) {
      await turn()
      expect(one.passed()).toBe(bytes)
      expect(one.connection.disconnecting).toBe(bytes > 2 * packet.length)
      one.connection.answered()
    }
  })

  it('deals with more of what the fast path takes', async () => {
    const pressure = new Pressure(DEFAULT_LIMITS, new IngestMetrics(new Registry()))
    const fleet = admitted(pressure)
    const packet = publication('devices/a/telemetry', '1')
    fleet.connection.published(1, 0)
    await turn()
    fleet.connection.receive(Buffer.concat(Array.from({ length: 10_000 }, () => packet)))
    expect(fleet.passed()).toBe(2_000 * packet.length)
  })
})
