import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { Pace } from '../../../../processor/log/embedded/pace.ts'

const MAX_BACKLOG = 100

describe('pace of appends', () => {
  let ends: { end: number }[]
  let positions: { epoch: number; input: number; changelogEnd: number }[]
  let pace: Pace

  beforeEach(() => {
    vi.useFakeTimers({ now: 1_000_000 })
    ends = [{ end: 0 }, { end: 0 }]
    positions = [
      { epoch: 1, input: 0, changelogEnd: 0 },
      { epoch: 1, input: 0, changelogEnd: 0 },
    ]
    pace = new Pace(ends, positions, MAX_BACKLOG, Date.now)
  })

  afterEach(() => {
    pace.close()
    vi.useRealTimers()
  })

  function append(partition: number, records: number): void {
    ;(ends[partition] as { end: number }).end += records
  }

  function commit(partition: number, records: number): void {
    const { input } = positions[partition] as { input: number }
    positions[partition] = { epoch: 1, input: input + records, changelogEnd: 0 }
    pace.committed(partition)
  }

  test('nobody waits while processing keeps up', () => {
    commit(0, 0)
    append(0, MAX_BACKLOG)
    expect(pace.relief).toBeUndefined()
  })

  test('relief comes with the commit that brings the backlog of all partitions down', async () => {
    commit(0, 0)
    commit(1, 0)
    for (const partition of [0, 1]) append(partition, MAX_BACKLOG / 2 + 1)
    const relieved = vi.fn()
    void pace.relief?.then(relieved)
    commit(0, 1)
    await vi.advanceTimersByTimeAsync(0)
    expect(relieved).not.toHaveBeenCalled()
    commit(1, 1)
    await vi.advanceTimersByTimeAsync(0)
    expect(relieved).toHaveBeenCalledOnce()
    expect(pace.relief).toBeUndefined()
  })

  test('nobody waits for a partition that is not processed, from 2 s without a commit on', async () => {
    append(0, 10_000)
    expect(pace.relief).toBeUndefined()
    commit(1, 0)
    append(1, MAX_BACKLOG + 1)
    const relieved = vi.fn()
    void pace.relief?.then(relieved)
    await vi.advanceTimersByTimeAsync(2_000)
    expect(relieved).not.toHaveBeenCalled()
    await vi.advanceTimersByTimeAsync(2_000)
    expect(relieved).toHaveBeenCalledOnce()
  })

  test('a backlog from a stop is worked off beside new records, one for each two that are processed', () => {
    append(0, 10_000)
    commit(0, 0)
    expect(pace.relief).toBeUndefined()
    append(0, MAX_BACKLOG + 1)
    expect(pace.relief).toBeDefined()
    commit(0, 1_000)
    expect(pace.relief).toBeUndefined()
    append(0, 500)
    expect(pace.relief).toBeDefined()
    for (let i = 0; i < 20; i++) commit(0, 480)
    append(0, MAX_BACKLOG + 1)
    expect(pace.relief).toBeDefined()
  })

  test('closing lets everybody go', async () => {
    commit(0, 0)
    append(0, 10_000)
    const { relief } = pace
    expect(relief).toBeDefined()
    pace.close()
    await relief
  })
})
