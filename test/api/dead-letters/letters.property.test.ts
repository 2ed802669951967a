import * as fc from 'fast-check'
import { expect, it } from 'vitest'
import { type LetterBudget, LetterCursors, type LetterPage, readLetters } from '../../../api/dead-letters/reading.ts'
import type { LogRecord } from '../../../processor/contract/record.ts'
import { TextTurns } from '../../../processor/runtime/turns.ts'
import { MemoryLetters } from './memory.ts'

const EVER = new AbortController().signal
const MUCH: LetterBudget = { records: 1e6, bytes: 1e9 }
const turns = new TextTurns()
const FILTERS = { reason: undefined, deviceId: undefined, partition: undefined }

const letter = fc.record({
  timestamp: fc.constantFrom(-1, 1, 2, 3, 4, 5),
  wanted: fc.boolean(),
  gap: fc.constantFrom(0, 0, 1, 40),
})
const partitions = fc.array(fc.array(letter, { maxLength: 40 }), { minLength: 1, maxLength: 4 })
const limits = fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1, maxLength: 4 })

type Partitions = typeof partitions extends fc.Arbitrary<infer T> ? T : never

function lettersOf(all: Partitions): MemoryLetters {
  const letters = new MemoryLetters(all.length)
  for (const [partition, each] of all.entries()) {
    for (const { timestamp, wanted, gap } of each)
      letters.add(partition, { timestamp, headers: headersOf(wanted) }, gap)
  }
  return letters
}

function headersOf(wanted: boolean) {
  return { reason: wanted ? 'not-json' : 'too-deep' }
}

const matches = ({ headers }: LogRecord) => headers?.reason === 'not-json'

/** From the newest of all partitions on, each time the newest head: what has no time comes at once. */
function merged(letters: MemoryLetters): string[] {
  const lanes = Array.from({ length: letters.partitions }, (_, p) => letters.kept(p).filter(matches))
  const order: string[] = []
  for (;;) {
    const heads = lanes.flatMap((lane, p) => {
      const head = lane.at(-1)
      return head === undefined ? [] : [{ p, at: head.timestamp < 0 ? 9 : head.timestamp }]
    })
    const [first] = heads.toSorted((a, b) => b.at - a.at)
    if (first === undefined) return order
    order.push(`${first.p}-${lanes[first.p]?.pop()?.offset}`)
  }
}

function names({ letters }: LetterPage): string[] {
  return letters.map(({ partition, offset }) => `${partition}-${offset}`)
}

/** All pages, of these limits in turn; each cursor goes through its text. */
async function pages(letters: MemoryLetters, sizes: readonly number[], budget: LetterBudget, between = () => {}) {
  const cursors = new LetterCursors(letters.identity, letters.partitions, FILTERS)
  const all: LetterPage[] = []
  let from: LetterPage['next']
  do {
    const limit = sizes[all.length % sizes.length] as number
    const page = await readLetters(
      { reader: letters, turns },
      { partition: undefined, from, limit, matches },
      budget,
      EVER,
    )
    expect(page.letters.length).toBeLessThanOrEqual(limit)
    all.push(page)
    from = page.next && cursors.decode(cursors.encode(page.next))
    expect(from).toEqual(page.next)
    between()
  } while (from !== undefined)
  return all
}

it('each letter is in one page, in the order of the merge, whatever the pages and gaps are', async () => {
  await fc.assert(
    fc.asyncProperty(partitions, limits, async (all, sizes) => {
      const letters = lettersOf(all)
      const expected = merged(letters)
      // What comes later is of no later page.
      const later = () => letters.add(0, { timestamp: 9, headers: headersOf(true) })
      const seen = await pages(letters, sizes, MUCH, later)
      expect(seen.flatMap(names)).toEqual(expected)
      expect(seen.every(({ complete }) => complete)).toBe(true)
    }),
  )
})

it('each letter is in one page, however little an answer may examine', async () => {
  const budgets = fc.record({ records: fc.integer({ min: 1, max: 20 }), bytes: fc.integer({ min: 1, max: 500 }) })
  await fc.assert(
    fc.asyncProperty(partitions, limits, budgets, async (all, sizes, budget) => {
      const letters = lettersOf(all)
      const seen = (await pages(letters, sizes, budget)).flatMap(names)
      expect(seen.toSorted()).toEqual(merged(letters).toSorted())
    }),
  )
})

it('a letter that retention removes between pages is in none of them twice, and none that is kept is missed', async () => {
  await fc.assert(
    fc.asyncProperty(partitions, limits, fc.integer({ min: 1, max: 30 }), async (all, sizes, step) => {
      const letters = lettersOf(all)
      const before = merged(letters)
      let start = 0
      const seen = (
        await pages(letters, sizes, MUCH, () => {
          if (start === 0) letters.remove(0, (start = step))
        })
      ).flatMap(names)
      const kept = merged(letters)
      expect(new Set(seen).size).toBe(seen.length)
      expect(before).toEqual(expect.arrayContaining(seen))
      expect(seen).toEqual(expect.arrayContaining(kept))
    }),
  )
})
