import { generate } from 'mqtt-packet'
import { describe, expect, it, vi } from 'vitest'
import { openIngest, publication, RawClient, turns, WAIT } from '../fixture.ts'

const TOPIC = 'devices/truck-17/telemetry'

/** All kinds of packets that the fast path takes or leaves, each message with its number as the payload. */
function mixture(): { bytes: Buffer; telemetry: string[]; letters: string[]; pubacks: number[]; pubrecs: number[] } {
  const packets: Buffer[] = []
  const expected = {
    telemetry: [] as string[],
    letters: [] as string[],
    pubacks: [] as number[],
    pubrecs: [] as number[],
  }
  const publish = (topic: string, qos: 0 | 1 | 2, retain = false): void => {
    const id = packets.length + 1
    packets.push(publication(topic, String(id), qos, id, { retain }))
    const list = topic.startsWith(TOPIC) ? expected.telemetry : expected.letters
    list.push(String(id))
    if (qos === 1) expected.pubacks.push(id)
    if (qos === 2) expected.pubrecs.push(id)
  }
  for (const qos of [1, 0, 2] as const) {
    publish(TOPIC, qos)
    publish(`${TOPIC}/temperature`, qos)
    publish('elsewhere', qos)
    publish(TOPIC, qos, true)
    publish(TOPIC, qos)
    packets.push(generate({ cmd: 'pingreq' }))
    publish(`${TOPIC}/température`, qos)
  }
  return { bytes: Buffer.concat(packets), ...expected }
}

describe('the fast path', () => {
  it.each([1, 7, 50, 10_000])('keeps packets in order when the stream comes in pieces of %i bytes', async (size) => {
    const { ingest, log } = await openIngest()
    const client = await RawClient.open(ingest.port)
    const { bytes, telemetry, letters, pubacks, pubrecs } = mixture()
    for (let at = 0; at < bytes.length; at += size) {
      client.write(bytes.subarray(at, at + size))
      await turns(2)
    }
    await vi.waitFor(() => expect(client.ids('pubrec')).toEqual(pubrecs), WAIT)
    await vi.waitFor(() => expect(client.ids('puback')).toEqual(pubacks), WAIT)
    expect(client.of('pingresp').length).toBe(3)
    expect(log.messages().map(([, value]) => value)).toEqual(telemetry)
    expect(log.letters().map(({ value }) => String(value))).toEqual(letters)
  })

  it('leaves to the broker what it refuses: a metric with a wildcard', async () => {
    const { ingest, log, metric } = await openIngest()
    const client = await RawClient.open(ingest.port)
    client.write(Buffer.concat([publication(TOPIC, '1', 1, 1), publication(`${TOPIC}/a+b`, '2', 1, 2)]))
    await client.end()
    expect(log.messages()).toEqual([['truck-17', '1']])
    expect(await metric('closes_total', { reason: 'malformed packet' })).toBe(1)
  })

  it('forwards from the moment somebody subscribes', async () => {
    const { ingest, log } = await openIngest()
    const client = await RawClient.open(ingest.port)
    const before = publication(TOPIC, 'before', 1, 1)
    const subscribe = generate({ cmd: 'subscribe', messageId: 2, subscriptions: [{ topic: 'devices/#', qos: 0 }] })
    client.write(Buffer.concat([before, subscribe]))
    await vi.waitFor(() => expect(client.of('suback').length).toBe(1), WAIT)
    client.publish(TOPIC, 'after', 1, 3)
    await vi.waitFor(
      () => expect(client.of('publish')).toMatchObject([{ topic: TOPIC, payload: Buffer.from('after') }]),
      WAIT,
    )
    await vi.waitFor(() => expect(client.ids('puback')).toEqual([1, 3]), WAIT)
    expect(log.messages().map(([, value]) => value)).toEqual(['before', 'after'])
  })
})
