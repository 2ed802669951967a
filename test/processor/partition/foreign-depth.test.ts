import { expect, it } from 'vitest'
import { type Field, parseField } from '../../../processor/contract/field.ts'
import { type Order, parseOrder } from '../../../processor/contract/order.ts'
import { parseQuery } from '../../../processor/search/language/parser.ts'
import { MemoryLog } from '../memory-log.ts'
import { RECEIVED, said, statusOf, Workbench } from '../workbench.ts'

const AT = '2026-11-24T10:00:00.000Z'
const STATUS = {
  deviceId: 'a',
  rev: 7,
  reported: { x: { value: 'METRIC', at: AT } },
  connectivity: { state: 'unknown', since: AT, reason: 'no session seen', session: 0 },
  firstSeenAt: AT,
  lastSeenAt: AT,
  counters: { messages: 7, late: 0, duplicates: 0, skewed: 0 },
  attributes: { site: 'ATTRIBUTE' },
}
const list = (depth: number) => '['.repeat(depth) + ']'.repeat(depth)
/** JSON.stringify fails at either. */
const DEEP = list(20_000)

function written({ rev = 7, metric = '1', attribute = '"k1"' }): string {
  return JSON.stringify({ ...STATUS, rev })
    .replace('"METRIC"', metric)
    .replace('"ATTRIBUTE"', attribute)
}

it.each([
  ['too deep a value', { metric: list(17) }, 1],
  ['far too deep a value', { metric: DEEP }, 1],
  ['attributes too deep', { attribute: list(16) }, 1],
  ['attributes far too deep', { attribute: DEEP }, 1],
  ['all as deep as it may be', { metric: list(16), attribute: list(15) }, 8],
])(
  'a device of which another program wrote %s goes on as that tells, and so does its partition',
  async (_, of, rev) => {
    const log = new MemoryLog()
    await using bench = await Workbench.open(log)
    await log.claim().commit({ changelog: [said('a', written(of))], deadLetters: [], next: 0 })
    await log.append('telemetry', [said('a', { y: 1 }), said('b', { y: 1 })])
    await bench.task()
    await bench.settled()
    const [a, b] = await bench.reader.getMany(0, ['a', 'b'])
    expect([statusOf(a).rev, statusOf(b).rev]).toEqual([rev, 1])
  },
)

it('a standby goes on past statuses that are nested too deep', async () => {
  const log = new MemoryLog()
  await using bench = await Workbench.open(log)
  const write = async (rev: number) => {
    const changelog = [said('a', written({ rev, attribute: DEEP })), said('b', { ...STATUS, deviceId: 'b' })]
    await log.claim().commit({ changelog, deadLetters: [], next: 0 })
  }
  await write(1)
  await bench.standby()
  await bench.settled()
  await write(2)
  await bench.settled()
  expect(bench.lines.filter((line) => line.includes('"level":50'))).toEqual([])
})

it('what is nested too deep is null to searches and summaries, of the index and of a scan', async () => {
  const log = new MemoryLog()
  await using bench = await Workbench.open(log)
  const deep = said('a', written({ metric: DEEP, attribute: DEEP }))
  await log.claim().commit({ changelog: [deep], deadLetters: [], next: 0 })
  await log.append('telemetry', [said('b', { x: 1 }, RECEIVED)])
  await bench.task()
  await bench.settled()
  const here = { partition: 0, within: undefined, from: undefined }
  const found = async (query: string, sort: string) => {
    const question = {
      ...here,
      query: parseQuery(query),
      order: parseOrder(sort) as Order,
      after: undefined,
      limit: 10,
    }
    return (await bench.reader.search(question)).items.map(({ deviceId }) => deviceId)
  }
  expect(await found('attributes.site:null', 'deviceId')).toEqual(['a'])
  expect(await found('attributes:*', 'attributes.site')).toEqual(['a'])
  expect(await found('reported.x:*', 'reported.x')).toEqual(['b', 'a'])
  for (const name of ['attributes.site', 'attributes', 'attributes.site.y', 'reported.x', 'reported']) {
    const by = [parseField(name) as Field]
    const { summary } = await bench.reader.summarize({ ...here, query: parseQuery(''), by, metrics: [] })
    expect(summary.devices).toBe(2)
    const expected = name === 'attributes.site.y' ? [undefined] : [null]
    const groups = summary.groups.map(({ values, missing }) => (missing.length > 0 ? undefined : values[0]))
    expect(groups, name).toEqual(expect.arrayContaining(expected))
  }
})
