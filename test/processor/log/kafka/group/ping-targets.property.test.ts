import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { type PingCandidate, pingsPerMember, pingTargets } from '../../../../../processor/log/kafka/group/peers.ts'

/** Some zones with some hosts of some processors each, in any order. */
const group: fc.Arbitrary<PingCandidate[]> = fc
  .array(fc.array(fc.integer({ min: 1, max: 8 }), { minLength: 1, maxLength: 12 }), { minLength: 1, maxLength: 5 })
  .chain((zones) => {
    const members = zones.flatMap((hosts, z) => {
      return hosts.flatMap((count, h) => Array.from({ length: count }, (_, i) => memberOf(z, h, i)))
    })
    return fc.shuffledSubarray(members, { minLength: members.length })
  })

function memberOf(zone: number, host: number, i: number): PingCandidate {
  const name = `${zone}-${host}-${i}`
  return { memberId: `tidemark-${name}`, instance: name, host: `host-${zone}-${host}`, zone: `zone-${zone}` }
}

function watchersIn(members: readonly PingCandidate[]): Map<PingCandidate, PingCandidate[]> {
  const watchers = new Map(members.map((member) => [member, [] as PingCandidate[]]))
  for (const [watcher, watched] of pingTargets(members)) for (const one of watched) watchers.get(one)?.push(watcher)
  return watchers
}

describe('each member', () => {
  test('watches as many others as watch it: all of a small group, and four at least', () => {
    fc.assert(
      fc.property(group, (members) => {
        const count = pingsPerMember(members.length)
        expect(count).toBeGreaterThanOrEqual(Math.min(members.length - 1, 4))
        if (members.length <= 39) expect(count).toBe(members.length - 1)
        const watchers = watchersIn(members)
        for (const [member, watched] of pingTargets(members)) {
          const others = new Set(watched)
          others.delete(member)
          expect(others.size).toBe(count)
          expect(new Set(watchers.get(member)).size).toBe(count)
        }
      }),
    )
  })

  test('is watched by one that lives when its host dies, or its zone, or all zones but one that is not tiny', () => {
    fc.assert(
      fc.property(group, (members) => {
        const watchers = watchersIn(members)
        const needed = members.length / (pingsPerMember(members.length) + 1)
        const zones = [...new Set(members.map(({ zone }) => zone))]
        const outages = [
          ...[...new Set(members.map(({ host }) => host))].map(
            (dead) =>
              ({ host }: PingCandidate) =>
                host === dead,
          ),
          ...zones.map(
            (dead) =>
              ({ zone }: PingCandidate) =>
                zone === dead,
          ),
          ...zones.map(
            (living) =>
              ({ zone }: PingCandidate) =>
                zone !== living,
          ),
        ]
        const missed = outages.flatMap((dies) => {
          const dead = members.filter(dies)
          if (members.length - dead.length < needed) return []
          return dead.filter((one) => watchers.get(one)?.every(dies))
        })
        expect(missed).toEqual([])
      }),
    )
  })

  test('watches the same others in whatever order the members are told', () => {
    fc.assert(
      fc.property(group, (members) => {
        const [told, turned] = [pingTargets(members), pingTargets(members.toReversed())]
        for (const member of members) expect(turned.get(member)).toEqual(told.get(member))
      }),
    )
  })
})
