import { describe, expect, it } from 'vitest'
import { type CountChanges, IndexCounts, type StoredCount } from '../../../processor/store/partition-index.ts'

const change = (group: string, what: string, by: number): CountChanges => new Map([[group, new Map([[what, by]])]])

/** What is stored after all changes, and counts that follow it. */
class Kept {
  readonly stored = new Map<string, string>()
  readonly counts = new IndexCounts()

  apply(changes: CountChanges): readonly StoredCount[] {
    const planned = this.counts.planned(changes)
    for (const { key, value } of planned) {
      if (value === undefined) this.stored.delete(key)
      else this.stored.set(key, String(value))
    }
    this.counts.accept(planned)
    return planned
  }

  loaded(): IndexCounts {
    return IndexCounts.load(this.stored)
  }
}

describe('counts of an index', () => {
  it('change when they are accepted, and not before', () => {
    const counts = new IndexCounts()
    const planned = counts.planned(change('s', 'online', 2))
    expect(counts.get('s', 'online')).toBe(0)
    counts.accept(planned)
    expect(counts.get('s', 'online')).toBe(2)
  })

  it('that come to zero are stored no more', () => {
    const kept = new Kept()
    kept.apply(change('s', 'online', 2))
    expect(kept.apply(change('s', 'online', -2))).toEqual([{ key: 's\0online', value: undefined }])
    expect(kept.stored.size).toBe(0)
    expect(kept.counts.get('s', 'online')).toBe(0)
  })

  it('that do not change are not written', () => {
    expect(new IndexCounts().planned(change('s', 'online', 0))).toEqual([])
  })

  it('of a group with too many are given up, over a restart too, and only those', () => {
    const kept = new Kept()
    kept.apply(change('b', 'x', 1))
    for (let i = 0; i <= 4096; i++) kept.apply(change('a', String(i), 1))
    kept.apply(change('a', '7', -1))
    for (const counts of [kept.counts, kept.loaded()]) {
      expect(counts.get('a', '1')).toBeUndefined()
      expect(counts.all('a')).toBeUndefined()
      expect(counts.get('b', 'x')).toBe(1)
    }
    expect(kept.stored.size).toBe(2)
  })

  it('of further groups are not kept when there are too many, and are then not taken for zero', () => {
    const kept = new Kept()
    for (let i = 0; i < 100; i++) kept.apply(change(`g${i}`, 'x', 1))
    kept.apply(change('s', 'online', 1))
    for (const counts of [kept.counts, kept.loaded()]) {
      expect(counts.get('g0', 'x')).toBe(1)
      expect(counts.get('g99', 'x')).toBeUndefined()
      expect(counts.get('never', 'x')).toBeUndefined()
      expect(counts.get('s', 'online')).toBe(1)
    }
    // A group that is let go does not make place for one that was not counted from the start.
    kept.apply(change('g0', 'x', -1))
    kept.apply(change('g99', 'x', 1))
    expect(kept.counts.get('g99', 'x')).toBeUndefined()
    expect(kept.loaded().get('g99', 'x')).toBeUndefined()
  })
})
