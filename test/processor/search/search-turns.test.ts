import { expect, it } from 'vitest'
import { type Turn, Turns } from '../../../processor/runtime/turns.ts'
import { parseQuery } from '../../../processor/search/language/parser.ts'
import { Searcher } from '../../../processor/search/searcher.ts'
import type { Searched } from '../../../processor/store/store.ts'
import { statusOf } from '../../api/changes/changelog.ts'
import { encodeStatus } from '../../status-model.ts'

class CountedTurns extends Turns {
  taken = 0

  override take(): Turn {
    this.taken++
    return super.take()
  }
}

/** Together about a turn's work, as bytes. */
const DEVICES = 64

function storeOf(padding: number): Searched {
  const left = Array.from({ length: DEVICES }, (_, i): [string, Buffer] => {
    const deviceId = `device-${String(i).padStart(2, '0')}`
    return [deviceId, Buffer.from(encodeStatus(statusOf(deviceId, i, padding)))]
  })
  const between = () => ({ next: async (size: number) => left.splice(0, size), close: async () => {} })
  return { between, getMany: async () => [], checkpoint: undefined, generation: 0, count: undefined, index: undefined }
}

async function turnsOf(q: string): Promise<number> {
  const turns = new CountedTurns()
  const query = parseQuery(q)
  const question = { partition: 0, query, within: undefined, by: [], metrics: [], from: undefined }
  const { summary } = await new Searcher(turns, () => 0).summarize(storeOf(4000), question)
  expect(summary.devices).toBe(0)
  return turns.taken
}

it('gives others their turn as patterns take their time, and not only as statuses are read', async () => {
  expect(await turnsOf('reported.padding:x*')).toBeLessThan(2)
  const hard = `reported.padding:*${'-'.repeat(100)}?${'-'.repeat(100)}x*`
  expect(await turnsOf(Array(8).fill(hard).join(' OR '))).toBeGreaterThan(DEVICES / 4)
})
