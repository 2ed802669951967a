import { Registry } from 'prom-client'
import { describe, expect, test } from 'vitest'
import type { RoutedReader } from '../../api/reader/reader.ts'
import { RemoteReaders } from '../../api/reader/remote.ts'
import { searchFleet, summarizeFleet } from '../../api/search/fleet-search.ts'
import { type Order, parseOrder } from '../../processor/contract/order.ts'
import { partitionOf } from '../../processor/contract/partition.ts'
import type { Place } from '../../processor/contract/search.ts'
import { QueryServer } from '../../processor/query/query-server.ts'
import { parseQuery } from '../../processor/search/language/parser.ts'
import { decodeSearchQuestion, encodeSearchQuestion } from '../../processor/search/wire.ts'
import { Fleet } from '../api/fleet.ts'
import { routed, silent } from '../api/stage.ts'
import { readerContract } from '../contract/reader.ts'

const whole = async () => []

/** A fleet in memory, each member behind an endpoint of its own. */
async function served(fleet: Fleet): Promise<{ reader: RoutedReader } & AsyncDisposable> {
  const running = new AsyncDisposableStack()
  const endpoints = new Map<string, string>()
  for (const [instance, member] of fleet.members) {
    const options = { host: '127.0.0.1', port: 0, secret: undefined, checks: whole, logger: silent }
    const server = running.use(await QueryServer.open({ ...options, registry: new Registry() }))
    server.serve(member)
    endpoints.set(instance, server.address)
  }
  const readers = running.use(new RemoteReaders({ secret: undefined, logger: silent }))
  const reader = routed(fleet, {
    connect: ({ instance }) => readers.connect({ instance, endpoint: endpoints.get(instance) as string }),
  })
  return { reader, [Symbol.asyncDispose]: () => running.disposeAsync() }
}

readerContract('RoutedReader over query endpoints', async () => {
  const fleet = new Fleet(4, ['a', 'b'])
  const { reader, [Symbol.asyncDispose]: dispose } = await served(fleet)
  const put = async (deviceId: string, reported: Parameters<Fleet['put']>[1]) => fleet.put(deviceId, reported)
  return { reader, partitions: fleet.partitions, put, [Symbol.asyncDispose]: dispose }
})

describe('a fleet behind query endpoints', () => {
  const asked = {
    within: undefined,
    order: parseOrder('deviceId') as Order,
    after: undefined,
    limit: 10,
    isOver: () => false,
  }

  test.each([
    ['a group of 60 values', `attributes.location.building:(b1${' OR b1'.repeat(59)})`],
    ['a bare word of 255 letters', 'x'.repeat(255)],
    ['a phrase of 2,040 colons', `"${':'.repeat(2_040)}"`],
    ['a name of 1,700 control characters and 60 values', `attributes.${'\u0001'.repeat(1_700)}:(a${' a'.repeat(59)})`],
  ])('answers a query with %s', async (_, alternative) => {
    const fleet = new Fleet(2, ['a'])
    for (const deviceId of ['a7', 'b7']) fleet.put(deviceId)
    await using over = await served(fleet)
    const query = parseQuery(`b7 OR ${alternative}`)
    const { items } = await searchFleet(over.reader, { ...asked, query })
    expect(items.map(({ deviceId }) => deviceId)).toEqual(['b7'])
    const { summary } = await summarizeFleet(over.reader, { ...asked, query, by: [], metrics: [] })
    expect(summary.devices).toBe(1)
  })

  test('goes on with a page after a status of which a question would be too large', async () => {
    // One partition has all, and is asked for its share of the page first.
    const fleet = new Fleet(8, ['a'])
    const ids = Array.from({ length: 200 }, (_, i) => `d${i}`).filter((id) => partitionOf(id, 8) === 0)
    const expected = ids.toSorted().slice(0, asked.limit)
    expect(expected).toHaveLength(asked.limit)
    const large = { value: 'x'.repeat(160 * 1024), at: '2026-11-26T09:00:00.000Z' }
    for (const deviceId of ids) fleet.put(deviceId, { large })
    await using over = await served(fleet)
    const { items } = await searchFleet(over.reader, { ...asked, query: parseQuery('') })
    expect(items.map(({ deviceId }) => deviceId)).toEqual(expected)
  })

  test('is asked for what comes after a device by its place alone', () => {
    const after: Place & { status: Uint8Array } = { key: [0, 7], deviceId: 'd7', status: Buffer.alloc(160 * 1024) }
    const question = { ...asked, partition: 0, query: parseQuery(''), from: undefined, after }
    const { after: place } = decodeSearchQuestion(encodeSearchQuestion(question))
    expect(place).toEqual({ key: [0, 7], deviceId: 'd7' })
    expect(encodeSearchQuestion(question).length).toBeLessThan(1_024)
  })
})
