import { expect, test } from 'vitest'
import { summarizeFleet } from '../../../api/search/fleet-search.ts'
import type { Freshness } from '../../../processor/contract/query.ts'
import { Summary } from '../../../processor/contract/summary.ts'
import { parseQuery } from '../../../processor/search/language/parser.ts'

test('a count is as fresh as the least fresh of its slices', async () => {
  const slices: Freshness[] = [
    { partition: 0, offset: 50, changelog: 5, lag: 1, servedBy: 'owner' },
    { partition: 0, offset: 40, changelog: 7, lag: 4, servedBy: 'standby' },
    { partition: 0, offset: 90, changelog: 9, lag: 0, servedBy: 'owner' },
  ]
  const asked: (number | undefined)[] = []
  const summarize = async ({ reached }: { readonly reached?: number | undefined }) => {
    const freshness = slices[asked.push(reached) - 1] as Freshness
    const next = asked.length < slices.length ? String(asked.length) : undefined
    return { summary: new Summary(0).toJSON(), next, freshness }
  }
  const question = { query: parseQuery('rev:1'), within: undefined, by: [], metrics: [], isOver: () => false }
  const { freshness } = await summarizeFleet({ partitionCount: 1, summarize }, question)
  expect(freshness).toEqual([{ partition: 0, offset: 40, changelog: 5, lag: 4, servedBy: 'standby' }])
  expect(asked).toEqual([undefined, 5, 5])
})
