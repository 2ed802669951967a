import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { Json } from '../../../processor/contract/json.ts'
import { Summary } from '../../../processor/contract/summary.ts'

const scalar = fc.constantFrom<Json | undefined>('a', 'b', '1', 1, true, null, undefined)
const by = fc.tuple(fc.oneof(scalar, fc.constantFrom<Json>([], ['a', 'b', 'a'], ['a', 1])), scalar)
/** Of the numbers that have all their digits, the one nearest to zero; those nearer are told as zero. */
const SMALLEST = 2 ** -1022
/** JSON does not tell -0 from 0. */
const reading = fc.double({ noNaN: true, min: -1e6, max: 1e6 }).map((value) => value + 0)
const metric = fc.oneof(reading, fc.constantFrom<Json | undefined>(0, 'x', undefined))
const device = fc.record({ by, metric })

/** The parts of a fleet, each summed up and sent, put together. */
function together(parts: readonly { by: readonly (Json | undefined)[]; metric: Json | undefined }[][]): Summary {
  const whole = new Summary(1)
  for (const part of parts) {
    const summary = new Summary(1)
    for (const each of part) summary.add(each.by, [each.metric])
    whole.merge(JSON.parse(JSON.stringify(summary)))
  }
  return whole
}

/** The lack of a field is not its being null. */
function keyOf(values: readonly (Json | undefined)[]): string {
  return values.map((value) => (value === undefined ? 'none' : JSON.stringify(value))).join()
}

function list(of: string): Json[] {
  return Array.from({ length: 16 }, (_, i) => `${of}-${i}`)
}

/** Of which one device is counted in groups. */
function elementsOf(value: Json | undefined): (Json | undefined)[] {
  if (!Array.isArray(value)) return [value]
  return value.length === 0 ? [value] : [...new Set(value.slice(0, 16))]
}

describe('a summary put together of parts', () => {
  it('counts what a plain count does', () => {
    fc.assert(
      fc.property(fc.array(fc.array(device, { maxLength: 20 }), { maxLength: 4 }), (parts) => {
        const expected = new Map<string, number[]>()
        const devices = parts.flat()
        for (const each of devices) {
          const [first, second] = each.by
          const elements = Array.isArray(first) && first.length > 0 ? [...new Set(first)] : [first]
          for (const element of elements) {
            const key = keyOf([element, second])
            const numbers = expected.get(key) ?? []
            numbers.push(typeof each.metric === 'number' ? each.metric : Number.NaN)
            expected.set(key, numbers)
          }
        }
        const summary = together(parts)
        expect(summary.devices).toBe(devices.length)
        const groups = summary.groups()
        expect(groups).toHaveLength(expected.size)
        for (const [i, group] of groups.entries()) {
          const numbers = expected.get(keyOf(group.by)) as number[]
          expect(group.count).toBe(numbers.length)
          expect(group.count).toBeLessThanOrEqual(groups[i - 1]?.count ?? Number.POSITIVE_INFINITY)
          const sorted = numbers.filter((number) => !Number.isNaN(number)).sort((a, b) => a - b)
          const [distribution] = group.metrics
          expect(distribution?.count ?? 0).toBe(sorted.length)
          if (distribution === undefined) continue
          expect(distribution).toMatchObject({ min: sorted[0], max: sorted.at(-1), exact: true })
          expect(distribution.percentiles.p90).toBe(sorted[Math.ceil(0.9 * sorted.length) - 1])
        }
      }),
    )
  })

  it('has of each device the first 256 groups, and tells of the devices that are in others, each at most once', () => {
    const some = ['a', 'b', 1, null, true, 'c', 'd', 'e', 2]
    const elements = fc.oneof(fc.array(fc.constantFrom<Json>(...some), { maxLength: 18 }), fc.constant(some))
    const values = fc.oneof({ weight: 4, arbitrary: elements }, fc.constantFrom<Json | undefined>('a', undefined))
    // Of so few devices, all groups find a place.
    const parts = fc.array(fc.array(fc.tuple(values, values, values), { maxLength: 1 }), { maxLength: 3 })
    fc.assert(
      fc.property(parts, (fleet) => {
        const expected = new Map<string, number>()
        let over = 0
        for (const [first, second, third] of fleet.flat()) {
          const all = elementsOf(first).flatMap((a) =>
            elementsOf(second).flatMap((b) => elementsOf(third).map((c) => keyOf([a, b, c]))),
          )
          for (const key of all.slice(0, 256)) expected.set(key, (expected.get(key) ?? 0) + 1)
          if (all.length > 256) over++
        }
        const summary = together(fleet.map((part) => part.map((each) => ({ by: each, metric: 1 }))))
        expect(new Map(summary.groups().map((group) => [keyOf(group.by), group.count]))).toEqual(expected)
        expect(summary.notShown).toBe(over)
      }),
    )
  })

  it('tells of no more devices than there are, however many of their groups find no place', () => {
    const parts = Array.from({ length: 3 }, (_, part) =>
      Array.from({ length: 5 }, (_none, i) => ({ by: [list(`${part}-${i}`), list('x')], metric: 1 })),
    )
    const summary = together(parts)
    expect(summary.groups()).toHaveLength(1000)
    expect([summary.devices, summary.notShown]).toEqual([15, 15])
    const [first] = parts
    expect(together([first ?? []]).notShown).toBe(2)
  })

  it('counts a text and the same one in a list as one group, however many groups there are', () => {
    const texts = Array.from({ length: 600 }, (_, i) => `t${i}`)
    const devices = texts.flatMap((text) => [text, [text]]).map((tag) => ({ by: [tag], metric: 1 }))
    const summary = together([devices])
    expect(summary.groups()).toHaveLength(600)
    expect(new Set(summary.groups().map(({ count }) => count))).toEqual(new Set([2]))
    expect(summary.notShown).toBe(0)
  })

  it('has the mean of values of any size, and a plain one of plain values', () => {
    const { MAX_VALUE } = Number
    const extreme = fc.constantFrom(MAX_VALUE, -MAX_VALUE, 1e308, -1e308, Number.MIN_VALUE)
    const number = fc.oneof(fc.double({ noNaN: true, noDefaultInfinity: true }), extreme)
    const parts = fc.array(fc.array(number, { maxLength: 12 }), { minLength: 1, maxLength: 4 })
    fc.assert(
      fc.property(parts, (fleet) => {
        const numbers = fleet.flat()
        const summary = together(fleet.map((part) => part.map((of) => ({ by: [], metric: of }))))
        const distribution = summary.groups()[0]?.metrics[0]
        if (numbers.length === 0) return
        const mean = distribution?.mean as number
        // The mean itself may be too large on the way there.
        const half = numbers.reduce((sum, value) => sum + value / 2 / numbers.length, 0)
        const largest = Math.max(...numbers.map(Math.abs))
        expect(Math.abs(mean / 2 - half)).toBeLessThanOrEqual(1e-12 * largest + 1e-280)
        expect(mean).toBeGreaterThanOrEqual(Math.min(...numbers))
        expect(mean).toBeLessThanOrEqual(Math.max(...numbers))
      }),
    )
    const some = [0.1, 0.2, 0.7, 3]
    const [group] = together([some.map((of) => ({ by: [], metric: of }))]).groups()
    expect(group?.metrics[0]?.mean).toBe(some.reduce((sum, value) => sum + value, 0) / 4)
  })

  it('tells percentiles of many values within 1 %, however large or small they are', () => {
    const number = fc.double({ noNaN: true, min: -1e9, max: 1e9 })
    const numbers = fc.array(number, { minLength: 15, maxLength: 40 })
    const scale = fc.constantFrom(1, 1e-9, 1e-12, 1e-290, 1e298)
    fc.assert(
      fc.property(numbers, scale, fc.integer({ min: 20, max: 30 }), (some, unit, times) => {
        const all = Array.from({ length: times }, (_, i) => some.map((of) => of * unit * (1 + i / 100))).flat()
        const parts = [all.slice(0, 20), all.slice(20)].map((part) => part.map((of) => ({ by: [], metric: of })))
        const [group] = together(parts).groups()
        const distribution = group?.metrics[0]
        const sorted = all.toSorted((a, b) => a - b)
        for (const [name, share] of [
          ['p50', 0.5],
          ['p90', 0.9],
          ['p99', 0.99],
        ] as const) {
          const exact = sorted[Math.ceil(share * all.length) - 1] as number
          const told = distribution?.percentiles[name] as number
          expect(Math.abs(told - exact)).toBeLessThanOrEqual(Math.abs(exact) * 0.0100001 + SMALLEST)
        }
        expect(distribution?.exact).toBe(all.length <= 512)
      }),
    )
  })

  it('has the percentiles of the others when one is of a process that numbers bins in another way', () => {
    const earlier = { count: 600, min: -1, max: 7, scaledSum: 600 / 2 ** 64, bins: [[1036, 600]] }
    const group = { values: [], missing: [], count: 600, metrics: [earlier] }
    const merged = (...numbers: number[]) => {
      const whole = together([numbers.map((value) => ({ by: [], metric: value }))])
      whole.merge(JSON.parse(JSON.stringify({ devices: 600, notShown: 0, groups: [group] })))
      const again = new Summary(1)
      again.merge(JSON.parse(JSON.stringify(whole)))
      return again.groups()[0]?.metrics[0]
    }
    const { percentiles, ...told } = merged(2, 2, 2, 3) ?? {}
    expect(told).toMatchObject({ count: 604, min: -1, max: 7, exact: false })
    expect([percentiles?.p50, percentiles?.p99].map((value) => value?.toFixed(1))).toEqual(['2.0', '3.0'])
    expect(Object.values(merged()?.percentiles ?? {})).toEqual([7, 7, 7, 7])
  })
})
