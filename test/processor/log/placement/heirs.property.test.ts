import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { type Assigned, assign, type Candidate, fitOf } from '../../../../processor/log/placement/assigner.ts'
import { type Deferred, deferToHeirs, lacksLittle } from '../../../../processor/log/placement/heirs.ts'

const WRITTEN = 100_000
const NEAR = WRITTEN - 1000
const ROUNDS = 8

/** Positions of the copies that a member has: of what it owns the newest. */
const place = fc.constantFrom(undefined, 0, NEAR - 1, NEAR, WRITTEN)

interface Shape {
  readonly partitions: number
  readonly standbys: number
  readonly members: readonly Candidate[]
}

/** A group in which each partition has one owner, or none, and whoever may has any copy of it. */
const group: fc.Arbitrary<Shape> = fc
  .record({ partitions: fc.integer({ min: 1, max: 12 }), size: fc.integer({ min: 1, max: 5 }), standbys: fc.nat(2) })
  .chain(({ partitions, size, standbys }) =>
    fc
      .record({
        owners: fc.array(fc.nat(size), { minLength: partitions, maxLength: partitions }),
        copies: fc.array(fc.array(place, { minLength: partitions, maxLength: partitions }), {
          minLength: size,
          maxLength: size,
        }),
        unfit: fc.array(fc.constantFrom(true, false, undefined, undefined), { minLength: size, maxLength: size }),
      })
      .map(({ owners, copies, unfit }) => {
        const members = copies.map((places, m): Candidate => {
          const active = owners.flatMap((owner, p) => (owner === m ? [p] : []))
          const positions = new Map(places.flatMap((at, p) => (at === undefined ? [] : [[p, at] as const])))
          for (const p of active) positions.set(p, WRITTEN)
          const standby = [...positions.keys()].filter((p) => !active.includes(p) && p % 2 === 0)
          const whole = standby.filter((p) => positions.get(p) === WRITTEN)
          return { name: String.fromCharCode(97 + m), active, standby, positions, whole, unfit: unfit[m] }
        })
        return { partitions, standbys, members }
      }),
  )

const deferred = ({ partitions, standbys, members }: Shape): Deferred => {
  return deferToHeirs(assign({ members, partitions, standbys }), members, undefined)
}

function ownersIn(assigned: ReadonlyMap<string, Assigned>): Map<number, string> {
  return new Map([...assigned].flatMap(([name, { active }]) => active.map((p) => [p, name] as const)))
}

const copyAt = (at: number): Candidate => {
  return { name: 'b', active: [], standby: [0], positions: new Map([[0, at]]) }
}

describe('a partition that is worked on', () => {
  test('goes at once only to a copy that lacks little; else its next owner is a standby', () => {
    fc.assert(
      fc.property(group, (shape) => {
        const { members, partitions, standbys } = shape
        const wished = ownersIn(assign({ members, partitions, standbys }))
        const { assigned, heirs } = deferred(shape)
        const owners = ownersIn(assigned)
        expect(owners.size).toBe(partitions)
        for (let p = 0; p < partitions; p++) {
          const before = members.find(({ active }) => active.includes(p))
          const next = members.find(({ name }) => name === wished.get(p)) as Candidate
          const stays = before !== undefined && before !== next && !lacksLittle(p, before, next, undefined)
          expect(owners.get(p)).toBe((stays ? before : next).name)
          expect(heirs.get(next.name)?.includes(p)).toBe(stays)
          if (stays) expect(assigned.get(next.name)?.standby).toContain(p)
        }
      }),
    )
  })

  test('loses no copy by that, and has none beside its owner', () => {
    fc.assert(
      fc.property(group, (shape) => {
        const { assigned } = deferred(shape)
        for (const [p, owner] of ownersIn(assigned)) {
          const standbys = [...assigned].filter(([, held]) => held.standby.includes(p)).map(([name]) => name)
          expect(standbys).not.toContain(owner)
          expect(standbys.length).toBeGreaterThanOrEqual(Math.min(shape.standbys, fitOf(shape.members).length - 1))
        }
      }),
    )
  })

  test('is where the assigner wants it when all copies have become whole', () => {
    fc.assert(
      fc.property(group, (shape) => {
        let members = shape.members
        for (let round = 0; round < ROUNDS; round++) {
          const { assigned, heirs } = deferred({ ...shape, members })
          if ([...heirs.values()].every((list) => list.length === 0)) {
            const takers = new Set(fitOf(members).map(({ name }) => name))
            const sizes = [...takers].map((name) => assigned.get(name)?.active.length as number)
            expect(Math.max(...sizes) - Math.min(...sizes)).toBeLessThanOrEqual(1)
            for (const [name, held] of assigned) {
              if (!takers.has(name)) expect(held).toEqual({ active: [], standby: [] })
            }
            return
          }
          members = members.map((member) => {
            const held = assigned.get(member.name) as Assigned
            const copies = [...held.active, ...held.standby].map((p) => [p, WRITTEN] as const)
            return {
              ...member,
              ...held,
              positions: new Map([...(member.positions ?? []), ...copies]),
              whole: held.standby,
            }
          })
        }
        throw new Error('heirs remain')
      }),
    )
  })

  test('stays with a member that is unfit, which is given nothing else, until a copy elsewhere is whole', () => {
    fc.assert(
      fc.property(group, (shape) => {
        const takers = fitOf(shape.members)
        const { assigned, heirs } = deferred(shape)
        for (const member of shape.members) {
          if (takers.includes(member)) continue
          const { active, standby } = assigned.get(member.name) as Assigned
          expect([standby, heirs.get(member.name)]).toEqual([[], []])
          for (const p of active) {
            expect(member.active).toContain(p)
            expect([...heirs.values()].flat()).toContain(p)
          }
        }
      }),
    )
  })

  test('where all are unfit, all are as good as any', () => {
    fc.assert(
      fc.property(group, (shape) => {
        const all = (unfit: boolean) => shape.members.map((member) => ({ ...member, unfit }))
        expect(deferred({ ...shape, members: all(true) })).toEqual(deferred({ ...shape, members: all(false) }))
      }),
    )
  })

  test('of a higher rate may be further behind, and one that is whole anywhere', () => {
    const owner: Candidate = { name: 'a', active: [0], standby: [], positions: new Map([[0, WRITTEN]]) }
    expect(lacksLittle(0, owner, copyAt(NEAR), undefined)).toBe(true)
    expect(lacksLittle(0, owner, copyAt(NEAR - 1), undefined)).toBe(false)
    expect(lacksLittle(0, owner, copyAt(NEAR - 500), [100])).toBe(true)
    expect(lacksLittle(0, owner, copyAt(NEAR - 501), [100])).toBe(false)
    expect(lacksLittle(0, owner, { ...copyAt(0), whole: [0] }, undefined)).toBe(true)
  })
})
