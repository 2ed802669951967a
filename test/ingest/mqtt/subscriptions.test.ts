import { generate } from 'mqtt-packet'
import { describe, expect, it, vi } from 'vitest'
import { openIngest, pinged, publication, RawClient, WAIT } from '../fixture.ts'

const TELEMETRY = 'devices/+/telemetry'
const DISCONNECT = Buffer.from([0xe0, 0])

async function subscribe(client: RawClient, topic: string, granted = 1): Promise<void> {
  client.send({ cmd: 'subscribe', messageId: 1, subscriptions: [{ topic, qos: 1 }] })
  await vi.waitFor(() => expect(client.of('suback').at(-1)).toMatchObject({ granted: [granted] }), WAIT)
}

function unsubscribe(messageId: number, ...unsubscriptions: string[]): Buffer {
  return generate({ cmd: 'unsubscribe', messageId, unsubscriptions })
}

describe('a subscription that ends', () => {
  const once = unsubscribe(1, TELEMETRY)
  const ends: [string, Buffer[], boolean][] = [
    ['by an UNSUBSCRIBE that names it twice', [unsubscribe(1, TELEMETRY, TELEMETRY)], false],
    ['by two UNSUBSCRIBEs at once', [once, unsubscribe(2, TELEMETRY)], false],
    ['by UNSUBSCRIBE and DISCONNECT at once', [once, DISCONNECT], true],
  ]
  it.each(ends.flatMap((end) => [true, false].map((clean) => [...end, clean] as const)))(
    '%s takes nothing of others',
    async (_name, packets, leaves, clean) => {
      const { ingest } = await openIngest({ maxSubscriptionLevelsTotal: 2 * TELEMETRY.split('/').length })
      const other = await RawClient.open(ingest.port)
      await subscribe(other, TELEMETRY)
      const one = await RawClient.open(ingest.port, { clientId: 'one', clean })
      await subscribe(one, TELEMETRY)
      one.write(Buffer.concat(packets))
      if (leaves) await one.end()
      else await vi.waitFor(() => expect(one.of('unsuback').length).toBe(packets.length), WAIT)
      const publisher = await RawClient.open(ingest.port)
      publisher.publish('devices/a/telemetry', '1', 1, 1)
      await vi.waitFor(() => expect(other.of('publish').length).toBe(1), WAIT)
      expect(one.of('publish')).toEqual([])
      await subscribe(publisher, 'a/b/c')
      await subscribe(publisher, 'b', 128)
    },
  )

  it.each([true, false])('and is made anew at once is there; clean session: %s', async (clean) => {
    const { ingest } = await openIngest()
    const one = await RawClient.open(ingest.port, { clientId: 'one', clean })
    await subscribe(one, 'home/+')
    const again = generate({ cmd: 'subscribe', messageId: 3, subscriptions: [{ topic: 'home/+', qos: 1 }] })
    one.write(Buffer.concat([unsubscribe(2, 'home/+'), again]))
    await vi.waitFor(() => expect(one.of('suback').length).toBe(2), WAIT)
    expect(one.received.slice(-2)).toMatchObject([
      { cmd: 'unsuback', messageId: 2 },
      { cmd: 'suback', messageId: 3, granted: [1] },
    ])
    const publisher = await RawClient.open(ingest.port)
    publisher.publish('home/a', '1', 1, 1)
    await vi.waitFor(() => expect(one.of('publish')).toMatchObject([{ qos: 1 }]), WAIT)
    one.write(unsubscribe(4, 'home/+'))
    await vi.waitFor(() => expect(one.ids('unsuback')).toEqual([2, 4]), WAIT)
    publisher.publish('home/a', '2', 1, 2)
    await pinged(publisher)
    await pinged(one)
    expect(one.of('publish').length).toBe(1)
  })
})

it.each(['a#', '+a', 'a/b+', '#/a'])('a SUBSCRIBE to %s closes the connection', async (topic) => {
  const { ingest } = await openIngest()
  const client = await RawClient.open(ingest.port)
  client.send({ cmd: 'subscribe', messageId: 1, subscriptions: [{ topic, qos: 1 }] })
  await client.end()
  expect(client.of('suback')).toEqual([])
})

it.each([1, 2] as const)(
  'a PUBLISH of QoS %i with the packet id 0 closes the connection, and leaves nothing',
  async (qos) => {
    const { ingest, log } = await openIngest()
    const client = await RawClient.open(ingest.port)
    const packet = publication('devices/a/telemetry', '1', qos, 257)
    const at = packet.indexOf(Buffer.from([1, 1]), 2)
    client.write(Buffer.concat([packet.subarray(0, at), Buffer.from([0, 0]), packet.subarray(at + 2)]))
    await client.end()
    expect(log.messages()).toEqual([])
  },
)
