import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { MAX_QUEUED_MS } from '../../../api/reader/exchange.ts'
import { LocalReaders, MAX_LOCAL_SEARCHES, PATIENCE_MS } from '../../../api/reader/local.ts'
import type { RoutedReader } from '../../../api/reader/reader.ts'
import type { SummarySlice } from '../../../processor/contract/search.ts'
import { parseQuery } from '../../../processor/search/language/parser.ts'
import { Fleet, type MemoryMember } from '../fleet.ts'
import { routed } from '../stage.ts'

const QUESTION = { partition: 0, query: parseQuery(''), within: undefined, by: [], metrics: [], from: undefined }

let fleet: Fleet
let member: MemoryMember
/** Ends the oldest slice under way. */
let end: () => void
let underWay: number

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
  fleet = new Fleet(1, ['a', 'b'])
  fleet.put('truck-1')
  fleet.assign(0, 'a', 'b')
  member = fleet.member('a')
  underWay = 0
  const ends: (() => void)[] = []
  member.fault = () => {
    underWay++
    return new Promise((resolve) => {
      ends.push(() => {
        underWay--
        resolve()
      })
    })
  }
  end = () => ends.shift()?.()
})
afterEach(() => vi.useRealTimers())

/** As `openApi` has it. */
function readerOver(locals: LocalReaders): RoutedReader {
  return routed(fleet, {
    connect: ({ endpoint }) => locals.of(fleet.member(endpoint)),
    searchQueuedMs: MAX_QUEUED_MS + PATIENCE_MS,
  })
}

function counts(reader: RoutedReader, many: number): Promise<SummarySlice>[] {
  return Array.from({ length: many }, () => {
    const counted = reader.summarize(QUESTION)
    counted.catch(() => undefined)
    return counted
  })
}

describe('searches of the copies that a process holds itself', () => {
  it('take turns, and are not late while they wait for theirs', async () => {
    const asked = counts(readerOver(new LocalReaders({ alone: true })), 2 * MAX_LOCAL_SEARCHES)
    await vi.advanceTimersByTimeAsync(3_000)
    expect(underWay).toBe(MAX_LOCAL_SEARCHES)
    for (let i = 0; i < MAX_LOCAL_SEARCHES; i++) end()
    await vi.advanceTimersByTimeAsync(3_000)
    expect(underWay).toBe(MAX_LOCAL_SEARCHES)
    for (let i = 0; i < MAX_LOCAL_SEARCHES; i++) end()
    for (const { summary, freshness } of await Promise.all(asked)) {
      expect([summary.devices, freshness.servedBy]).toEqual([1, 'owner'])
    }
    // Nobody else, and nobody twice.
    expect([member.asked, fleet.member('b').asked]).toEqual([2 * MAX_LOCAL_SEARCHES, 0])
  })

  it('are refused as too many when they wait too long, or take too long', async () => {
    const asked = counts(readerOver(new LocalReaders({ alone: true })), MAX_LOCAL_SEARCHES + 1)
    await vi.advanceTimersByTimeAsync(MAX_QUEUED_MS + 500)
    await expect(asked.at(-1)).rejects.toMatchObject({ kind: 'overloaded', headers: { 'retry-after': '1' } })
    await vi.advanceTimersByTimeAsync(PATIENCE_MS)
    await expect(asked[0]).rejects.toMatchObject({ kind: 'overloaded' })
    expect(member.asked).toBe(MAX_LOCAL_SEARCHES)
    expect(fleet.member('b').asked).toBe(0)
  })

  it('leave their places to others when they fail', async () => {
    const local = new LocalReaders({ alone: true }).of(member)
    member.fault = () => Promise.reject(new Error('damaged'))
    const failing = Array.from({ length: MAX_LOCAL_SEARCHES }, () => local.summarize(QUESTION))
    expect(await Promise.allSettled(failing)).toEqual(
      failing.map(() => expect.objectContaining({ status: 'rejected' })),
    )
    member.fault = undefined
    const counted = local.summarize(QUESTION)
    counted.catch(() => undefined)
    await vi.advanceTimersByTimeAsync(MAX_QUEUED_MS)
    expect((await counted).summary.devices).toBe(1)
  })

  it('are asked of another copy when they are late, where the process is not alone', async () => {
    const [counted] = counts(readerOver(new LocalReaders({ alone: false })), 1)
    await vi.advanceTimersByTimeAsync(1_500)
    expect((await counted)?.freshness.servedBy).toBe('standby')
  })
})
