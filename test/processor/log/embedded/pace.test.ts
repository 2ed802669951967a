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

  function commit(partition: number, input: number): void {
    positions[partition] = { epoch: 1, input, changelogEnd: 0 }
    pace.committed(partition)
  }

  /** Order in which the holds were let go. */
  function hold(times: number): number[] {
    const released: number[] = []
    for (let i = 0; i < times; i++) void pace.hold()?.then(() => released.push(i))
    return released
  }

  test('nothing is held while processing keeps up', () => {
    commit(0, 0)
    ends = Object.assign(ends, [{ end: MAX_BACKLOG }])
    expect(pace.hold()).toBeUndefined()
  })

  test('nothing is held for a partition that nobody processes', () => {
    Object.assign(ends[0] as object, { end: 10_000 })
    expect(pace.hold()).toBeUndefined()
    commit(0, 0)
    vi.advanceTimersByTime(5_000)
    expect(pace.hold()).toBeUndefined()
  })

  test('appends are held until a commit brings the backlog down, and go in order', async () => {
    commit(0, 0)
    Object.assign(ends[0] as object, { end: MAX_BACKLOG + 1 })
    const released = hold(3)
    commit(0, 0)
    await vi.advanceTimersByTimeAsync(0)
    expect(released).toEqual([])
    commit(0, 1)
    await vi.advanceTimersByTimeAsync(0)
    expect(released).toEqual([0, 1, 2])
  })

  test('the backlog is that of all partitions together', () => {
    commit(0, 0)
    commit(1, 0)
    for (const partition of ends) partition.end = MAX_BACKLOG / 2 + 1
    expect(pace.hold()).toBeInstanceOf(Promise)
  })

  test('no append is held for longer than the bound, whatever processing does', async () => {
    commit(0, 0)
    Object.assign(ends[0] as object, { end: 10_000 })
    const released = hold(2)
    await vi.advanceTimersByTimeAsync(199)
    expect(released).toEqual([])
    await vi.advanceTimersByTimeAsync(1)
    expect(released).toEqual([0, 1])
  })

  test('closing lets go of what is held', async () => {
    commit(0, 0)
    Object.assign(ends[0] as object, { end: 10_000 })
    const released = hold(1)
    pace.close()
    await vi.advanceTimersByTimeAsync(0)
    expect(released).toEqual([0])
  })
})
