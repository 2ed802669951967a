import { expect, it } from 'vitest'
import { parseField } from '../../../processor/contract/field.ts'
import { parseOrder } from '../../../processor/contract/order.ts'
import { bufferOf } from '../../../processor/contract/query.ts'
import { parseQuery } from '../../../processor/search/language/parser.ts'
import { MemoryLog } from '../memory-log.ts'
import { RECEIVED, said, statusOf, Workbench } from '../workbench.ts'

const STATUS = {
  deviceId: 'a',
  rev: 7,
  reported: { x: { value: [1], at: '2026-11-24T10:00:00.000Z' } },
  connectivity: { state: 'unknown', since: '2026-11-24T10:00:00.000Z', reason: 'no session seen', session: 0 },
  firstSeenAt: '2026-11-24T10:00:00.000Z',
  lastSeenAt: '2026-11-24T10:00:00.000Z',
  counters: { messages: 7, late: 0, duplicates: 0, skewed: 0 },
  sequence: { seen: [[1, 2]], session: 0 },
}

it.each([
  ['{}'],
  ['null'],
  ['[1]'],
  ['garbage'],
  [{ ...STATUS, deviceId: 'b' }],
  [{ ...STATUS, rev: '7' }],
  [{ ...STATUS, reported: { x: null } }],
  [{ ...STATUS, connectivity: { state: 'online' } }],
  [{ ...STATUS, counters: { messages: 7 } }],
  [{ ...STATUS, sequence: { seen: [3], session: 0 } }],
  [{ ...STATUS, attributes: 1 }],
])('a device of which another program wrote %j begins anew, and its partition goes on', async (written) => {
  const log = new MemoryLog()
  await using bench = await Workbench.open(log)
  const headers = { input: '0', devices: '3' }
  const changelog = [said('a', written), said('c', written), { ...said('d', { ...STATUS, deviceId: 'd' }), headers }]
  await log.claim().commit({ changelog, deadLetters: [], next: 0 })
  const online = { state: 'online', reason: 'connected', session: 2 }
  const connection = { ...said('c', online), headers: { kind: 'connectivity' } }
  await log.append('telemetry', [said('a', { x: 1, seq: 1 }), connection, said('d', { y: 1 })])
  await bench.task()
  await bench.settled()
  await log.append('telemetry', [said('a', { y: 1 }, RECEIVED + 1)])
  await bench.settled()
  const [a, c, d] = await bench.reader.getMany(0, ['a', 'c', 'd'])
  expect(statusOf(a)).toMatchObject({ deviceId: 'a', rev: 2, counters: { messages: 2 } })
  expect(c?.status).toBeUndefined()
  expect(statusOf(d)).toMatchObject({ rev: 8, counters: { messages: 8 } })
  const { store } = bench.roles.get(0) ?? {}
  expect(store?.count).toBe(2)
  expect(await store?.recount()).toBe(2)
  expect(bench.lines.filter((line) => line.includes('is no status'))).toHaveLength(1)
})

const COPY = { ...STATUS, deviceId: 'c' }
const BARE = { deviceId: 'c' }

it.each<[string, object]>([
  ['garbage', BARE],
  ['null', BARE],
  ['[1]', BARE],
  ['5', BARE],
  ['{}', BARE],
  ['{"x":1}', BARE],
  ['{"deviceId":"c"', BARE],
  ['{"deviceId":"c","reported":{"a":{"value":}}}', BARE],
  [JSON.stringify(COPY).slice(0, -1), BARE],
  [JSON.stringify(STATUS), BARE],
  ['{ "deviceId": "c" }', BARE],
  ['{"deviceId":"c","reported":null}', { ...BARE, reported: null }],
  ['{ "deviceId": "c", "reported": { "a": null } }', { ...BARE, reported: { a: null } }],
  [JSON.stringify(COPY, undefined, 1), COPY],
])('a device of which another program wrote %s takes no part in what the others are asked for', async (text, shown) => {
  const log = new MemoryLog()
  await using bench = await Workbench.open(log)
  const written = { ...said('c', text), headers: { input: '0', devices: '1' } }
  await log.claim().commit({ changelog: [written], deadLetters: [], next: 0 })
  await log.append('telemetry', [said('b', { a: 1 }), said('d', { a: 2 })])
  await bench.task()
  await bench.settled()
  const { reader } = bench
  const here = { partition: 0, within: undefined, from: undefined }
  const ids = async (query: string, order: string, after?: string) => {
    const place = after === undefined ? undefined : { deviceId: after, key: [6] as const }
    const ordered = parseOrder(order) as NonNullable<ReturnType<typeof parseOrder>>
    const question = { ...here, query: parseQuery(query), order: ordered, after: place, limit: 10 }
    const { items } = await reader.search(question)
    for (const { deviceId, status } of items) expect(decoded(status).deviceId).toBe(deviceId)
    return items.map(({ deviceId }) => deviceId)
  }
  for (const order of ['deviceId', 'reported.a', 'attributes.x.y']) {
    expect(await ids('', order)).toEqual(order === 'reported.a' ? ['b', 'd', 'c'] : ['b', 'c', 'd'])
    expect(await ids('reported.a:1', order)).toEqual(['b'])
    expect(await ids('NOT attributes.x.y:1', order)).toHaveLength(3)
  }
  expect(await ids('NOT reported.a:1', '-deviceId')).toEqual(['d', 'c'])
  expect(await ids('reported.a.at:*', 'lastSeenAt')).toEqual(['b', 'd'])
  const counted = async (query: string, by: string, metric: string) => {
    const [fields, metrics] = [by, metric].map((name) => [
      parseField(name) as NonNullable<ReturnType<typeof parseField>>,
    ])
    return reader.summarize({ ...here, query: parseQuery(query), by: fields ?? [], metrics: metrics ?? [] })
  }
  expect((await counted('', 'reported.a', 'reported.a')).summary).toMatchObject({ devices: 3 })
  expect((await counted('reported.a:*', 'attributes.site', 'rev')).summary).toMatchObject({ devices: 2 })
  const [one] = await reader.getMany(0, ['c'])
  expect(statusOf(one)).toEqual(shown)
  const [each] = await reader.getEach(['c'], [0])
  if (each === undefined || each instanceof Error || each.status === undefined) throw new Error('not known')
  expect(decoded(bufferOf(each.status))).toEqual(shown)
  const { items } = await reader.list(0, 'b', 1)
  expect(items.map(({ deviceId, status }) => [deviceId, decoded(status)])).toEqual([['c', shown]])
  const lines = bench.lines.filter((line) => line.includes('"device":"c"'))
  expect(lines).toHaveLength(shown === BARE && text !== '{ "deviceId": "c" }' ? 1 : 0)
})

function decoded(status: Uint8Array): Record<string, unknown> {
  return JSON.parse(Buffer.from(status).toString()) as Record<string, unknown>
}
