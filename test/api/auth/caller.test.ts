import { array, assert, option, property, stringMatching } from 'fast-check'
import { expect, it } from 'vitest'
import { type Caller, disjoint, maySee, visibleAfter } from '../../../api/auth/caller.ts'

const deviceId = stringMatching(/^[-.:_0Aaz]{1,4}$/)

function callerFor(prefixes: readonly string[] | undefined): Caller {
  return { subject: undefined, scopes: new Set(), prefixes, expiresAt: undefined, isTrusted: () => true }
}

it('may see what starts with one of its prefixes, and all without them', () => {
  expect(maySee(callerFor(undefined), 'a')).toBe(true)
  expect(maySee(callerFor([]), 'a')).toBe(false)
  expect(maySee(callerFor(['truck-', 'x']), 'truck-1')).toBe(true)
  expect(maySee(callerFor(['truck-', 'x']), 'truck')).toBe(false)
})

it('leads through all devices that it may see, with one miss a prefix at most', () => {
  assert(
    property(array(deviceId), array(deviceId), option(deviceId, { nil: undefined }), (given, prefixes, after) => {
      const caller = callerFor(disjoint(prefixes))
      const ids = [...new Set(given)].toSorted()
      const seen: string[] = []
      let misses = 0
      for (let at = after; ; ) {
        const from = visibleAfter(caller, at)
        const next = from === null ? undefined : ids.find((id) => from === undefined || id > from)
        if (next === undefined) break
        if (maySee(caller, next)) seen.push(next)
        else misses++
        at = next
      }
      expect(seen).toEqual(ids.filter((id) => (after === undefined || id > after) && maySee(caller, id)))
      expect(misses).toBeLessThanOrEqual(prefixes.length)
    }),
  )
})

it('sees the same by its prefixes once those that say nothing new are gone', () => {
  assert(
    property(array(deviceId), deviceId, (prefixes, id) => {
      expect(maySee(callerFor(disjoint(prefixes)), id)).toBe(maySee(callerFor(prefixes), id))
    }),
  )
})
