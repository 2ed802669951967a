import { setImmediate as turn } from 'node:timers/promises'
import { Registry } from 'prom-client'
import { expect, it } from 'vitest'
import { DEFAULT_LIMITS, type Limits } from '../../../ingest/limits.ts'
import { IngestMetrics } from '../../../ingest/metrics.ts'
import { type RetainedPacket, RetainedStore } from '../../../ingest/mqtt/retained.ts'

function retained(topics: readonly string[], limits: Partial<Limits> = {}): RetainedStore<RetainedPacket> {
  const store = new RetainedStore({ ...DEFAULT_LIMITS, ...limits }, new IngestMetrics(new Registry()))
  for (const topic of topics) store.put({ topic, payload: Buffer.from('1') })
  return store
}

async function found(store: RetainedStore<RetainedPacket>, filters: readonly string[]): Promise<string[]> {
  const packets: RetainedPacket[] = await store.matching(filters).toArray()
  return packets.map(({ topic }) => topic)
}

it('finds each topic once, by the rules of MQTT 3.1.1 section 4.7', async () => {
  const store = retained(['a', 'a/b', 'a//c', 'a/b/c', '/a', '$own/a', 'b'])
  for (const [filters, expected] of [
    [['a'], ['a']],
    [
      ['b', 'a', 'x'],
      ['b', 'a'],
    ],
    [['#'], ['a', 'a/b', 'a//c', 'a/b/c', '/a', 'b']],
    [['+'], ['a', 'b']],
    [
      ['a/#', 'a/b', 'b'],
      ['a', 'a/b', 'a//c', 'a/b/c', 'b'],
    ],
    [['a/+/c'], ['a//c', 'a/b/c']],
    [['+/+'], ['a/b', '/a']],
    [['$own/#'], ['$own/a']],
    [
      ['+/a', '$own/+'],
      ['/a', '$own/a'],
    ],
  ] as const) {
    expect(await found(store, filters), filters.join(' ')).toEqual(expected)
  }
})

it('when full, takes newer messages of the topics it has, and no other topics', async () => {
  const store = retained(['a', 'b'], { maxRetained: 1 })
  const newer = { topic: 'a', payload: Buffer.from('2') }
  store.put(newer)
  expect(await store.matching(['#']).toArray()).toEqual([newer])
})

it('lets others go on while it holds many topics against many filters', async () => {
  const levels = Array.from({ length: 90 }, (_, i) => `level-${i}`).join('/')
  const store = retained(Array.from({ length: 5_000 }, (_, i) => `${levels}/${i}`))
  const filters = Array.from({ length: 1_000 }, (_, i) => `+/${levels}/${i}/none`)
  let turns = 0
  const search = found(store, filters).finally(() => {
    turns = -turns
  })
  while (turns >= 0) {
    turns++
    await turn()
  }
  expect(await search).toEqual([])
  expect(-turns).toBeGreaterThan(2)
})
