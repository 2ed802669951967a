import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { describe, expect, it, vi } from 'vitest'
import { Filters } from '../../../ingest/mqtt/topics.ts'
import { deliveries, openIngest, pinged, publication, RawClient, subscribe, WAIT } from '../fixture.ts'

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void

const SESSION = { clientId: 'office', clean: false }
const TOPIC = 'cmd/1/x'

async function gone(client: RawClient): Promise<void> {
  client.socket.destroy()
  await client.end()
}

describe('a persistent session with several filters that match a topic', () => {
  it.each([1, 2] as const)(
    'is sent once what waited for it, and not again once it was acknowledged: QoS %i',
    async (qos) => {
      const { ingest, metric } = await openIngest()
      const first = await RawClient.open(ingest.port, SESSION)
      await subscribe(first, { 'cmd/+/x': qos, 'cmd/1/#': qos, 'cmd/#': 0 })
      await gone(first)
      await vi.waitFor(async () => expect(await metric('connections')).toBe(0), WAIT)
      const publisher = await RawClient.open(ingest.port)
      publisher.write(Buffer.concat(['1', '2'].map((text, i) => publication(TOPIC, text, qos, i + 1))))
      const ack = qos === 1 ? 'puback' : 'pubrec'
      await vi.waitFor(() => expect(publisher.ids(ack)).toEqual([1, 2]), WAIT)
      const second = await RawClient.open(ingest.port, SESSION)
      const once: [string, number, boolean][] = [
        ['1', qos, false],
        ['2', qos, false],
      ]
      await vi.waitFor(() => expect(deliveries(second).length).toBeGreaterThanOrEqual(2), WAIT)
      await pinged(second)
      expect(deliveries(second)).toEqual(once)
      for (const messageId of second.ids('publish') as number[]) {
        second.send({ cmd: ack, messageId })
        if (qos === 2) second.send({ cmd: 'pubcomp', messageId })
      }
      await pinged(second)
      await gone(second)
      const third = await RawClient.open(ingest.port, SESSION)
      await pinged(third)
      expect(deliveries(third)).toEqual([])
      expect(third.of('pubrel')).toEqual([])
    },
  )

  it('is sent again what it was sent while connected and did not acknowledge, and nothing else', async () => {
    const { ingest } = await openIngest()
    const first = await RawClient.open(ingest.port, SESSION)
    await subscribe(first, { 'cmd/+/x': 1, 'cmd/1/#': 1 })
    const publisher = await RawClient.open(ingest.port)
    const sent = ['1', '2', '3', '4']
    publisher.write(Buffer.concat(sent.map((text, i) => publication(TOPIC, text, 1, i + 1))))
    await vi.waitFor(() => expect(deliveries(first)).toEqual(sent.map((text) => [text, 1, false])), WAIT)
    const [acknowledged, ...left] = first.ids('publish') as number[]
    first.send({ cmd: 'puback', messageId: acknowledged as number })
    await pinged(first)
    await gone(first)
    const second = await RawClient.open(ingest.port, SESSION)
    const again = sent.slice(1).map((text) => [text, 1, true])
    await vi.waitFor(() => expect(deliveries(second).length).toBeGreaterThanOrEqual(again.length), WAIT)
    await pinged(second)
    expect(deliveries(second)).toEqual(again)
    expect(second.ids('publish')).toEqual(left)
  })
})

describe('a message that several filters of a client match is delivered once, with the highest QoS that one grants [MQTT-3.3.5-1]', () => {
  const filters: Record<string, 0 | 1 | 2>[] = [
    { 'cmd/+/x': 0, 'cmd/#': 1 },
    { 'cmd/+/x': 1, 'cmd/#': 0 },
    { 'cmd/1/x': 0, 'cmd/#': 1 },
    { 'cmd/1/x': 1, 'cmd/#': 0 },
    { 'cmd/#': 0, 'cmd/1/x': 1 },
    { 'cmd/#': 1, 'cmd/1/x': 0 },
  ]
  it.each(filters.flatMap((one) => [true, false].map((clean) => [one, clean] as const)))(
    '%j, clean session: %s',
    async (granted, clean) => {
      const { ingest } = await openIngest()
      const subscriber = await RawClient.open(ingest.port, { clientId: 'office', clean })
      await subscribe(subscriber, granted)
      const publisher = await RawClient.open(ingest.port)
      const sent: [string, number, boolean][] = []
      for (const qos of [0, 1, 2] as const) {
        publisher.publish(TOPIC, String(qos), qos)
        sent.push([String(qos), Math.min(qos, 1), false])
        await vi.waitFor(() => expect(deliveries(subscriber).length).toBe(sent.length), WAIT)
      }
      await pinged(subscriber)
      expect(deliveries(subscriber)).toEqual(sent)
    },
  )
})

it('a message that is delivered with QoS 0 takes no packet id', async () => {
  const { ingest } = await openIngest()
  const subscriber = await RawClient.open(ingest.port, SESSION)
  await subscribe(subscriber, { a: 0, b: 1 })
  const publisher = await RawClient.open(ingest.port)
  const topics = ['b', 'a', 'a', 'b', 'a', 'b']
  publisher.write(Buffer.concat(topics.map((topic, i) => publication(topic, topic, 1, i + 1))))
  await vi.waitFor(() => expect(subscriber.of('publish').length).toBe(topics.length), WAIT)
  const [first = 0, ...others] = subscriber.ids('publish').filter((id) => id !== undefined)
  expect(others).toEqual([1, 2].map((after) => ((first + after - 1) % 65_535) + 1))
})

it('what is granted later counts for the same topic', () => {
  const filters = new Filters()
  for (const [filter, qos] of [
    ['cmd/+/x', 0],
    ['cmd/#', 1],
    ['elsewhere', 2],
  ] as const)
    filters.set(filter, qos)
  expect([filters.atMost(2, TOPIC), filters.atMost(2, TOPIC)]).toEqual([1, 1])
  filters.set(TOPIC, 2)
  expect([filters.atMost(2, TOPIC), filters.atMost(1, TOPIC), filters.atMost(2, 'elsewhere')]).toEqual([2, 1, 2])
  expect(filters.atMost(2, TOPIC)).toBe(2)
  filters.delete(TOPIC)
  filters.delete('cmd/#')
  expect(filters.atMost(2, TOPIC)).toBe(0)
})

it('a session keeps no long topic of a message that it was sent', async () => {
  const length = 65_000
  const sessions = Array.from({ length: 500 }, () => new Filters())
  for (const filters of sessions) {
    filters.set('+', 0)
    filters.set('#', 1)
  }
  collect()
  const before = process.memoryUsage().heapUsed
  for (const [i, filters] of sessions.entries()) {
    expect(filters.atMost(2, Buffer.alloc(length, `${i} `).toString())).toBe(1)
  }
  await Promise.resolve()
  collect()
  expect(process.memoryUsage().heapUsed - before).toBeLessThan((sessions.length * length) / 10)
  expect(sessions.map(({ levels }) => levels)).toEqual(sessions.map(() => 2))
})
