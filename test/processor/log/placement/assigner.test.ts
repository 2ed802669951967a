import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  type Assigned,
  type AssignmentInput,
  assign,
  type Candidate,
} from '../../../../processor/log/placement/assigner.ts'

type Result = ReadonlyMap<string, Assigned>

function members(result: Result, positions: ReadonlyMap<string, ReadonlyMap<number, number>> = new Map()): Candidate[] {
  return [...result].map(([name, held]) => ({ name, ...held, positions: positions.get(name) }))
}

const fresh = (name: string, more: Partial<Candidate> = {}): Candidate => {
  return { name, active: [], standby: [], ...more }
}

function owners(result: Result): Map<number, string> {
  return new Map([...result].flatMap(([name, { active }]) => active.map((p) => [p, name] as const)))
}

const sizes = (result: Result, list: keyof Assigned) => [...result.values()].map((held) => held[list].length)
const spread = (numbers: number[]) => Math.max(...numbers) - Math.min(...numbers)

/** Any members with any memory of the past, right or wrong. */
const anyInput: fc.Arbitrary<AssignmentInput> = fc
  .record({ partitions: fc.integer({ min: 1, max: 24 }), standbys: fc.integer({ min: 0, max: 2 }) })
  .chain(({ partitions, standbys }) => {
    const partition = fc.integer({ min: 0, max: partitions - 1 })
    const member = fc.record({
      name: fc.string({ minLength: 1, maxLength: 3 }),
      active: fc.uniqueArray(partition, { maxLength: 8 }),
      standby: fc.uniqueArray(partition, { maxLength: 8 }),
      positions: fc.uniqueArray(fc.tuple(partition, fc.nat(1000)), { selector: ([p]) => p }).map((all) => new Map(all)),
    })
    return fc.record({
      partitions: fc.constant(partitions),
      standbys: fc.constant(standbys),
      members: fc.uniqueArray(member, { minLength: 1, maxLength: 7, selector: (m) => m.name }),
      load: fc.option(fc.array(fc.nat(1000), { minLength: partitions, maxLength: partitions }), { nil: undefined }),
    })
  })

/** A group that came to be by joins alone, from instances a, b, c… */
const grown = fc
  .record({ size: fc.integer({ min: 1, max: 7 }), partitions: fc.integer({ min: 1, max: 24 }), standbys: fc.nat(2) })
  .map(({ size, partitions, standbys }) => {
    let result: Result = new Map()
    for (let i = 0; i < size; i++) {
      result = assign({ members: [...members(result), fresh(String.fromCharCode(97 + i))], partitions, standbys })
    }
    return { result, partitions, standbys, size }
  })

describe('assign', () => {
  test('gives every partition one owner and its standbys to others, evenly', () => {
    fc.assert(
      fc.property(anyInput, (input) => {
        const result = assign(input)
        const copies = Math.min(input.standbys, input.members.length - 1)
        const all = Array.from({ length: input.partitions }, (_, i) => i)
        const active = [...result.values()].flatMap((held) => held.active)
        expect(active.sort((a, b) => a - b)).toEqual(all)
        const standby = [...result.values()].flatMap((held) => held.standby)
        expect(standby.sort((a, b) => a - b)).toEqual(all.flatMap((p) => Array(copies).fill(p)))
        for (const held of result.values()) {
          const both = [...held.active, ...held.standby]
          expect(new Set(both).size).toBe(both.length)
        }
        expect(spread(sizes(result, 'active'))).toBeLessThanOrEqual(1)
        expect(spread(sizes(result, 'standby'))).toBeLessThanOrEqual(1)
      }),
    )
  })

  test('is the same whatever the order of the members', () => {
    fc.assert(
      fc.property(anyInput, (input) => {
        const turned = assign({ ...input, members: input.members.toReversed() })
        expect(turned).toEqual(assign(input))
      }),
    )
  })

  test('moves nothing when nothing changes', () => {
    fc.assert(
      fc.property(anyInput, (input) => {
        const once = assign(input)
        const byName = new Map(input.members.map((m) => [m.name, m]))
        const again = assign({
          ...input,
          load: undefined,
          members: members(once, new Map([...byName].map(([i, m]) => [i, m.positions ?? new Map()]))),
        })
        expect(again).toEqual(once)
      }),
    )
  })

  test('moves to a new member only what balance gives it', () => {
    fc.assert(
      fc.property(grown, ({ result, partitions, standbys, size }) => {
        const before = owners(result)
        const joined = assign({ members: [...members(result), fresh('~new')], partitions, standbys })
        const moved = [...owners(joined)].filter(([p, owner]) => before.get(p) !== owner)
        expect(moved.every(([, owner]) => owner === '~new')).toBe(true)
        expect(moved.length).toBeLessThanOrEqual(Math.ceil(partitions / (size + 1)))
      }),
    )
  })

  test('moves of a member that leaves only what it had', () => {
    fc.assert(
      fc.property(grown, fc.nat(), ({ result, partitions, standbys, size }, pick) => {
        fc.pre(size > 1)
        const gone = [...result.keys()][pick % size] as string
        const before = owners(result)
        const left = assign({ members: members(result).filter((m) => m.name !== gone), partitions, standbys })
        for (const [p, owner] of owners(left)) if (before.get(p) !== gone) expect(owner).toBe(before.get(p))
      }),
    )
  })

  test('gives a free partition to the most caught-up copy', () => {
    const result = assign({
      partitions: 4,
      standbys: 1,
      members: [
        fresh('cold', { active: [0] }),
        fresh('far', { active: [1], standby: [3], positions: new Map([[3, 10]]) }),
        fresh('near', { active: [2], standby: [], positions: new Map([[3, 900]]) }),
      ],
    })
    expect(owners(result).get(3)).toBe('near')
  })

  test('promotes the standbys of an owner that has gone, as far as balance lets it', () => {
    fc.assert(
      fc.property(grown, fc.nat(), ({ result, partitions, size }, pick) => {
        fc.pre(size > 2)
        const before = assign({ members: members(result), partitions, standbys: 1 })
        const gone = [...before.keys()][pick % size] as string
        const lost = (before.get(gone) as Assigned).active
        const left = assign({ members: members(before).filter((m) => m.name !== gone), partitions, standbys: 1 })
        for (const [name, { active }] of left) {
          const held = before.get(name) as Assigned
          const warm = lost.filter((p) => held.standby.includes(p)).length
          const promoted = active.filter((p) => held.standby.includes(p)).length
          const room = Math.floor(partitions / (size - 1)) - held.active.length
          expect(promoted).toBeGreaterThanOrEqual(Math.min(warm, room))
        }
      }),
    )
  })

  test('spreads the standbys of one owner, so that its partitions are shared when it dies', () => {
    const result = assign({ members: ['a', 'b', 'c', 'd'].map((name) => fresh(name)), partitions: 24, standbys: 1 })
    for (const { active } of result.values()) {
      const holders = [...result.values()].map((held) => active.filter((p) => held.standby.includes(p)).length)
      expect(holders.sort((a, b) => a - b)).toEqual([0, 2, 2, 2])
    }
  })

  test('puts a standby into another zone than its owner', () => {
    const zones = new Map([
      ['a1', 'a'],
      ['a2', 'a'],
      ['b1', 'b'],
      ['b2', 'b'],
    ])
    const result = assign({
      partitions: 8,
      standbys: 1,
      members: [...zones].map(([name, zone]) => fresh(name, { zone })),
    })
    for (const [p, owner] of owners(result)) {
      const [standby] = [...result].find(([, held]) => held.standby.includes(p)) as [string, Assigned]
      expect(zones.get(standby)).not.toBe(zones.get(owner))
    }
    expect(spread(sizes(result, 'standby'))).toBeLessThanOrEqual(1)
  })

  test('gives what is free to the member with the least load, and moves nothing else for it', () => {
    const result = assign({
      partitions: 5,
      standbys: 0,
      load: [100, 100, 10, 10, 50],
      members: [fresh('a', { active: [0, 1] }), fresh('b', { active: [2, 3] })],
    })
    expect(result.get('a')?.active).toEqual([0, 1])
    expect(result.get('b')?.active).toEqual([2, 3, 4])
  })

  test('looks at each copy a few times, however many are free: the leader is not to stand still', () => {
    let looks = 0
    class Watched extends Map<number, number> {
      override get(partition: number): number | undefined {
        looks++
        return super.get(partition)
      }
      override *[Symbol.iterator](): MapIterator<[number, number]> {
        for (const entry of super.entries()) {
          looks++
          yield entry
        }
      }
    }
    const partitions = 256
    const all = Array.from({ length: partitions }, (_, p) => [p, 1000 + p] as const)
    const copies = Array.from({ length: 16 }, (_, i) => fresh(`m${i}`, { positions: new Watched(all) }))
    looks = 0
    assign({ members: copies, partitions, standbys: 2 })
    expect(looks).toBeLessThanOrEqual(3 * partitions * copies.length)
  })

  test('gives what is free to the only copy there is, though its store cannot be written', () => {
    const stuck = fresh('stuck', { active: [1], standby: [0], positions: new Map([[0, 0]]) })
    const cold = fresh('cold', { active: [2] })
    expect(owners(assign({ members: [cold, stuck], partitions: 4, standbys: 1 })).get(0)).toBe('stuck')
  })

  test('gives nothing to members that are unfit, and shares it out among the others as if they were alone', () => {
    fc.assert(
      fc.property(anyInput, fc.nat(), (input, pick) => {
        const flagged = input.members.map((member, i) => ({ ...member, unfit: ((pick >> i) & 1) === 1 }))
        const fit = flagged.filter(({ unfit }) => !unfit)
        fc.pre(fit.length > 0)
        const result = assign({ ...input, members: flagged })
        const alone = assign({ ...input, members: fit })
        for (const { name, unfit } of flagged) {
          expect(result.get(name)).toEqual(unfit ? { active: [], standby: [] } : alone.get(name))
        }
      }),
    )
  })

  test('of nobody is empty', () => {
    expect(assign({ members: [], partitions: 4, standbys: 1 }).size).toBe(0)
  })
})
