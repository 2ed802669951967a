import { expect, it } from 'vitest'
import { searchFleet } from '../../../api/search/fleet-search.ts'
import { type Order, parseOrder } from '../../../processor/contract/order.ts'
import type { Place } from '../../../processor/contract/search.ts'
import { parseQuery } from '../../../processor/search/language/parser.ts'
import { MemoryLog } from '../memory-log.ts'
import { RECEIVED, said, Workbench } from '../workbench.ts'

const REAL = Array.from({ length: 6 }, (_, i) => `d${i}`)

/** Other numbers and times than the devices of Tidemark have, between theirs. */
const between = (i: number) => {
  const at = new Date(RECEIVED + i * 1000 + 500).toISOString()
  return { rev: 1, lastSeenAt: at, reported: { a: { value: i + 0.5, at } } }
}
const FOREIGN: Record<string, (i: number) => string> = {
  'the status of another device': (i) => JSON.stringify({ deviceId: 'other', ...between(i) }),
  'no JSON': (i) => JSON.stringify({ deviceId: `z${i}`, ...between(i) }).slice(0, -1),
  'no JSON in a member': (i) =>
    JSON.stringify({
      deviceId: `z${i}`,
      ...between(i),
      reported: { a: { value: i + 0.5 }, b: { value: 'NaN' } },
    }).replace('"NaN"', 'NaN'),
  'a member twice': (i) => `{"deviceId":"z${i}","rev":1,"lastSeenAt":"x",${JSON.stringify(between(i)).slice(1)}`,
}

it.each(Object.keys(FOREIGN))('pages of a sorted list have every device once, where others are %s', async (name) => {
  const log = new MemoryLog()
  await using bench = await Workbench.open(log)
  const text = FOREIGN[name] as (i: number) => string
  const strangers = REAL.map((_, i) => said(`z${i}`, text(i)))
  await log.claim().commit({ changelog: strangers, deadLetters: [], next: 0 })
  const telemetry = REAL.map((id, i) => said(id, { a: i }, RECEIVED + i * 1000))
  await log.append('telemetry', telemetry)
  await bench.task()
  await bench.settled()
  const reader = { partitionCount: 1, search: bench.reader.search.bind(bench.reader) }
  const all = [...REAL, ...strangers.map(({ key }) => key)]
  for (const sort of ['deviceId', '-deviceId', 'lastSeenAt', '-lastSeenAt', 'reported.a', '-reported.a']) {
    for (const query of ['', 'NOT reported.b:5', 'NOT connectivity.state:offline']) {
      for (const limit of [1, 2, 5]) {
        const order = parseOrder(sort) as Order
        const ids: string[] = []
        let after: Place | undefined
        do {
          const page = { query: parseQuery(query), within: undefined, order, after, limit, isOver: () => false }
          const { items, next } = await searchFleet(reader, page)
          ids.push(...items.map(({ deviceId }) => deviceId))
          after = next
        } while (after !== undefined && ids.length <= all.length)
        expect(ids.toSorted(), `${sort} of ${query} by ${limit}`).toEqual(all)
      }
    }
  }
})
