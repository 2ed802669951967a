import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { assign } from '../../../../processor/log/placement/assigner.ts'
import {
  type Balanced,
  Balancer,
  type Held,
  loadOf,
  type Move,
  type Rates,
} from '../../../../processor/log/placement/balance.ts'
import { type Random, seededRandom } from '../../../../simulators/random.ts'

const ROUNDS = 300
const SPANS = 6
const WRITTEN = 1_000_000

interface Shape {
  readonly size: number
  readonly partitions: number
  readonly standbys: number
}

/** A group whose leader goes round after round. */
class Group {
  readonly balancer: Balancer
  readonly moves: Move[] = []
  members: readonly Held[]
  spans: Rates[] = []
  /** Changelog position of every copy that is not the owner's. */
  copied = WRITTEN
  unfit: string | undefined

  constructor({ size, partitions, standbys }: Shape) {
    this.balancer = new Balancer(partitions, standbys)
    this.members = Array.from({ length: size }, (_, i) => ({ name: `m${i}`, active: [], standby: [] }))
    this.assign()
  }

  assign(): Balanced {
    const candidates = this.members.map((member) => {
      const standby = member.standby.map((p) => [p, this.copied] as const)
      const positions = new Map([...standby, ...member.active.map((p) => [p, WRITTEN] as const)])
      return { ...member, positions, unfit: member.name === this.unfit }
    })
    const balanced = this.balancer.assign(candidates, this.spans)
    this.members = [...balanced.assigned].map(([name, held]) => ({ name, ...held }))
    this.moves.push(...balanced.moved)
    return balanced
  }

  /** What came of it, when the round led to an assignment. */
  round(rates: Rates): Balanced | undefined {
    this.spans = [...this.spans, rates].slice(-SPANS)
    return this.balancer.round(this.spans) ? this.assign() : undefined
  }

  /** Rounds of one load until something comes of one. */
  until(rates: Rates): Balanced {
    for (let i = 0; i < ROUNDS; i++) {
      const balanced = this.round(rates)
      if (balanced !== undefined) return balanced
    }
    throw new Error('nothing came of it')
  }

  most(rates: Rates): number {
    return Math.max(...this.members.map((member) => loadOf(member, rates)))
  }
}

const shape = fc
  .record({ size: fc.integer({ min: 2, max: 6 }), more: fc.nat(30), standbys: fc.nat(2) })
  .map(({ size, more, standbys }) => ({ size, partitions: size + more, standbys }))

const rate = fc.oneof(fc.nat(500), fc.nat(5000), fc.constantFrom(0, 20_000))

const loaded = shape.chain((of) =>
  fc.record({
    of: fc.constant(of),
    rates: fc.array(rate, { minLength: of.partitions, maxLength: of.partitions }),
    seed: fc.nat(1e9),
  }),
)

function noisy(rates: Rates, random: Random, share: number): Rates {
  return rates.map((each) => each * (1 + share * (2 * random() - 1)))
}

const owners = (members: readonly Held[]) => new Map(members.flatMap((m) => m.active.map((p) => [p, m.name])))
const spread = (numbers: number[]) => Math.max(...numbers) - Math.min(...numbers)

/** Rates under which the first member has all the load, and could share it. */
function skewed(group: Group): Rates {
  const [hot] = group.members as [Held]
  return [0, 1, 2, 3].map((p) => (hot.active.includes(p) ? 5000 : 100))
}

describe('a stable group', () => {
  test('moves, of a load that stays, what evens it, and then nothing', () => {
    fc.assert(
      fc.property(loaded, ({ of, rates }) => {
        const group = new Group(of)
        for (let i = 0, last = group.most(rates); i < ROUNDS; i++) {
          const before = group.members
          const balanced = group.round(rates)
          if (balanced === undefined) continue
          expect(group.most(rates)).toBeLessThanOrEqual(last)
          last = group.most(rates)
          if (balanced.moved.length === 0) continue
          const pair = ({ name }: Held) => balanced.moved.some(({ from, to }) => name === from || name === to)
          const most = (members: readonly Held[]) => Math.max(...members.filter(pair).map((m) => loadOf(m, rates)))
          expect(most(group.members)).toBeLessThanOrEqual(0.8 * most(before))
        }
        expect(group.moves.length).toBeLessThanOrEqual(3 * of.size)
        const settled = group.moves.length
        for (let i = 0; i < 50; i++) expect(group.round(rates)).toBeUndefined()
        expect(group.moves.length).toBe(settled)
      }),
    )
  })

  test('moves little for the noise of a load, and makes nothing worse', () => {
    fc.assert(
      fc.property(loaded, ({ of, rates, seed }) => {
        const group = new Group(of)
        const random = seededRandom(seed, 0)
        const most = group.most(rates)
        for (let i = 0; i < ROUNDS; i++) {
          if (group.round(noisy(rates, random, 0.3)) === undefined) continue
          expect(group.most(rates)).toBeLessThanOrEqual(1.05 * most)
        }
        expect(group.moves.length).toBeLessThanOrEqual(4 * of.size)
      }),
    )
  })

  test('whatever the load does, moves one pair of partitions in ten rounds, and the same partition ever more seldom', () => {
    fc.assert(
      fc.property(shape, fc.nat(1e9), fc.integer({ min: 1, max: 40 }), (of, seed, every) => {
        const group = new Group(of)
        const random = seededRandom(seed, 0)
        let rates: Rates = []
        for (let i = 0; i < ROUNDS; i++) {
          if (i % every === 0) rates = Array.from({ length: of.partitions }, () => (random() < 0.2 ? 9000 : 100))
          const before = group.moves.length
          group.round(rates)
          expect(group.moves.length - before).toBeLessThanOrEqual(2)
        }
        expect(group.moves.length).toBeLessThanOrEqual((2 * ROUNDS) / 10)
        const perPartition = Map.groupBy(group.moves, ({ partition }) => partition)
        // It stays for 20, 40, 80 and 160 rounds.
        for (const moves of perPartition.values()) expect(moves.length).toBeLessThanOrEqual(5)
      }),
    )
  })

  test('stops only what moves, and keeps counts and copies as they must be', () => {
    fc.assert(
      fc.property(loaded, ({ of, rates, seed }) => {
        const group = new Group(of)
        const random = seededRandom(seed, 0)
        const copies = Math.min(of.standbys, of.size - 1)
        for (let i = 0; i < ROUNDS / 3; i++) {
          const before = owners(group.members)
          const standbys = new Map(group.members.map(({ name, standby }) => [name, standby]))
          group.copied = random() < 0.5 ? WRITTEN : 0
          const balanced = group.round(noisy(rates, random, 0.3))
          if (balanced === undefined) continue
          const { moved, warming } = balanced
          const expected = new Map(before)
          for (const { partition, to } of moved) expected.set(partition, to)
          expect(owners(group.members)).toEqual(expected)
          expect(spread(group.members.map(({ active }) => active.length))).toBeLessThanOrEqual(1)
          if (warming.length > 0) {
            for (const { name, standby } of group.members) {
              expect(standby).toEqual(expect.arrayContaining([...(standbys.get(name) ?? [])]))
            }
          }
          for (let p = 0; p < of.partitions; p++) {
            const holders = group.members.filter(({ standby }) => standby.includes(p))
            const extra = warming.filter(({ partition }) => partition === p).length
            expect(holders.length).toBeGreaterThanOrEqual(copies)
            expect(holders.length).toBeLessThanOrEqual(copies + extra)
            expect(holders.some(({ active }) => active.includes(p))).toBe(false)
          }
        }
      }),
      { numRuns: 1000 },
    )
  })

  test('moves nothing for the sake of a few records', () => {
    fc.assert(
      fc.property(loaded, ({ of, rates }) => {
        const group = new Group(of)
        const all = rates.reduce((sum, each) => sum + each, 0)
        const small = rates.map((each) => (each * 999) / Math.max(1, all))
        for (let i = 0; i < 30; i++) expect(group.round(small)).toBeUndefined()
      }),
    )
  })
})

describe('a member with most of the load', () => {
  const two = { size: 2, partitions: 4, standbys: 1 }

  test('swaps one partition with a copy that is there at once, but not for a burst', () => {
    const group = new Group(two)
    const rates = skewed(group)
    const idle = rates.map(() => 100)
    for (let i = 0; i < 20; i++) expect(group.round(i % 4 === 3 ? idle : rates)).toBeUndefined()
    const { moved, warming } = group.until(rates)
    expect([moved.length, warming.length]).toEqual([2, 0])
    expect(group.most(rates)).toBe(5100)
  })

  test('waits for a copy that is far behind', () => {
    const group = new Group(two)
    const rates = skewed(group)
    const before = owners(group.members)
    group.copied = WRITTEN / 2
    expect(group.until(rates).warming).toHaveLength(2)
    for (let i = 0; i < 10; i++) expect(group.round(rates)?.moved).toEqual([])
    expect(owners(group.members)).toEqual(before)
    group.copied = WRITTEN - 1000
    expect(group.round(rates)?.moved).toHaveLength(2)
  })

  test('has a copy made first where there is none, and dropped when the load has gone meanwhile', () => {
    const group = new Group({ ...two, standbys: 0 })
    const rates = skewed(group)
    group.copied = 0
    const { moved, warming } = group.until(rates)
    expect(moved).toEqual([])
    for (const { partition, to } of warming) {
      expect(group.members.find(({ name }) => name === to)?.standby).toContain(partition)
    }
    for (let i = 0; i < SPANS; i++) group.round(rates.map(() => 100))
    expect(group.members.flatMap(({ standby }) => standby)).toEqual([])
    expect(group.moves).toEqual([])
    group.until(rates)
    group.copied = WRITTEN
    expect(group.round(rates)?.moved).toHaveLength(2)
    expect(group.members.flatMap(({ standby }) => standby)).toEqual([])
  })

  test('waits for copies for twenty rounds, and gives it up for ten', () => {
    const group = new Group({ ...two, standbys: 0 })
    const rates = skewed(group)
    group.copied = 0
    group.until(rates)
    for (let i = 0; i < 20; i++) expect(group.round(rates)?.warming).toHaveLength(2)
    expect(group.round(rates)?.warming).toEqual([])
    for (let i = 0; i < 10; i++) expect(group.round(rates)).toBeUndefined()
    expect(group.round(rates)?.warming).toHaveLength(2)
  })

  test('gives none of it to a member that is unfit, and what was planned for that is dropped', () => {
    const group = new Group({ ...two, standbys: 0 })
    const rates = skewed(group)
    group.copied = 0
    const [plan] = group.until(rates).warming
    group.unfit = plan?.to as string
    const { moved, warming } = group.assign()
    expect({ moved, warming }).toEqual({ moved: [], warming: [] })
    group.copied = WRITTEN
    group.assign()
    for (let i = 0; i < ROUNDS; i++) expect(group.round(rates)).toBeUndefined()
    expect(group.members.find(({ name }) => name === group.unfit)?.active).toEqual([])
  })

  test('keeps its partitions when members come meanwhile: the plan was made for others', () => {
    const group = new Group({ ...two, standbys: 0 })
    const rates = skewed(group)
    group.copied = 0
    group.until(rates)
    const members = [...group.members.map((m) => ({ ...m, standby: [] })), { name: 'n', active: [], standby: [] }]
    group.members = members
    const { assigned, heirs, moved, warming } = group.assign()
    // What the newcomer is to have, it has as a copy first.
    const wished = assign({ members, partitions: 4, standbys: 0, load: rates }).get('n')?.active
    expect(assigned.get('n')).toEqual({ active: [], standby: wished })
    expect(heirs.get('n')).toEqual(wished)
    for (const { name, active } of members.slice(0, -1)) expect(assigned.get(name)?.active).toEqual(active)
    expect({ moved, warming }).toEqual({ moved: [], warming: [] })
  })
})
