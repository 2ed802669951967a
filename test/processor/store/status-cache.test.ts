import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { HeldStatus } from '../../../processor/status/held-status.ts'
import { type CachedStatus, StatusCache } from '../../../processor/store/status-cache.ts'

const owner = {}
const IDS = Array.from('abcdefghij')
const status = (deviceId: string) => new HeldStatus(deviceId, '2026-11-24T10:00:00.000Z')

describe('StatusCache', () => {
  it('gives an entry to its owner only', () => {
    const cache = new StatusCache({ maxEntries: 2, maxBytes: 100 })
    cache.add(status('a'), owner, 1, 10)
    expect(cache.get('a', owner)?.status.deviceId).toBe('a')
    expect(cache.get('a', {})).toBeUndefined()
    expect(cache.get('b', owner)).toBeUndefined()
  })

  it('keeps what is used when a long row of cold devices passes by', () => {
    const cache = new StatusCache({ maxEntries: 100, maxBytes: 1e9 })
    const hot = Array.from({ length: 50 }, (_, i) => `hot${i}`)
    for (const id of hot) cache.add(status(id), owner, 1, 1)
    for (let i = 0; i < 5000; i++) {
      cache.add(status(`cold${i}`), owner, 1, 1)
      cache.get(hot[i % 50] as string, owner)
    }
    expect(hot.filter((id) => cache.get(id, owner) === undefined)).toEqual([])
    expect(cache.size).toBe(100)
  })

  it('keeps a share of a fleet that is larger and reports in turns', () => {
    const cache = new StatusCache({ maxEntries: 100, maxBytes: 1e9 })
    const fleet = Array.from({ length: 400 }, (_, i) => `device${i}`)
    let hits = 0
    for (let round = 0; round < 20; round++) {
      for (const id of fleet) {
        if (cache.get(id, owner) === undefined) cache.add(status(id), owner, 1, 1)
        else hits++
      }
    }
    // As many as it holds, of four times as many, would be 0.25.
    expect(hits / (20 * 400)).toBeGreaterThan(0.1)
  })

  it('lets a single entry be larger than the bound, alone', () => {
    const cache = new StatusCache({ maxEntries: 10, maxBytes: 100 })
    cache.add(status('a'), owner, 1, 60)
    cache.add(status('b'), owner, 1, 500)
    expect([cache.size, cache.bytes]).toEqual([1, 500])
    expect(cache.get('b', owner)).toBeDefined()
  })

  it('never exceeds its bounds, and holds what it says, after any calls', () => {
    const ids = fc.constantFrom(...IDS)
    const size = fc.nat(40)
    const call = fc.oneof(
      fc.tuple(fc.constant('add' as const), ids, size),
      fc.tuple(fc.constant('resize' as const), ids, size),
      fc.tuple(fc.constant('get' as const), ids, size),
      fc.tuple(fc.constant('delete' as const), ids, size),
    )
    fc.assert(
      fc.property(fc.array(call, { maxLength: 100 }), (calls) => {
        const cache = new StatusCache({ maxEntries: 5, maxBytes: 100 })
        const last = new Map<string, CachedStatus | undefined>()
        for (const [name, deviceId, bytes] of calls) {
          const known = last.get(deviceId)
          if (name === 'add') last.set(deviceId, cache.add(status(deviceId), owner, 1, bytes))
          else if (name === 'delete') cache.delete(deviceId)
          else if (name === 'resize' && known !== undefined) cache.resize(known, bytes)
          const held = IDS.map((id) => cache.get(id, owner)).filter((entry) => entry !== undefined)
          expect(held).toHaveLength(cache.size)
          expect(held.reduce((sum, entry) => sum + entry.bytes, 0)).toBe(cache.bytes)
          for (const entry of held) expect(entry).toBe(last.get(entry.deviceId))
          expect(cache.size <= 5 && cache.bytes <= 100).toBe(true)
          if (name === 'add') expect(cache.get(deviceId, owner)).toBe(last.get(deviceId))
        }
      }),
    )
  })
})
