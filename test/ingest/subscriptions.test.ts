import { generate } from 'mqtt-packet'
import { describe, expect, it, vi } from 'vitest'
import { openIngest, RawClient, WAIT } from './fixture.ts'

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
      const { ingest } = await openIngest({ maxSubscriptionsTotal: 2 })
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
      await subscribe(publisher, 'a')
      await subscribe(publisher, 'b', 128)
    },
  )
})
