import { readFileSync } from 'node:fs'
import peggy from 'peggy'
import { expect, it } from 'vitest'
import { MAX_QUERY_DEPTH } from '../../processor/contract/search-query.ts'
import { parse } from '../../processor/contract/search-syntax.js'

const read = (name: string) => readFileSync(new URL(`../../processor/contract/${name}`, import.meta.url), 'utf8')
const grammar = read('search-syntax.peggy')
const counted = peggy.generate(grammar, { trace: true })

it('the parser of queries is of the grammar as it stands (npm run generate)', () => {
  expect(read('search-syntax.js') === peggy.generate(grammar, { output: 'source', format: 'es' })).toBe(true)
})

it.each([
  ['('],
  [')'],
  ['NOT '],
  ['-'],
  ['!'],
  ['"'],
  ['\\'],
  ['*'],
  [':'],
  ['[', 'rev:'],
  ['>', 'rev:'],
  ['rev:('],
  ['rev:(NOT '],
  ['x '],
  ['x OR '],
  ['x AND '],
  ['*:*'],
  ['"x" '],
  ['_exists_:rev '],
  ['rev:5 '],
  ['rev:[1 TO 5] '],
  ['7 ', 'rev:('],
  ['-7 OR NOT ', 'rev:('],
  ['((x) y) '],
  ['rev:((5) OR 6) '],
  ['x', '', '~'],
  ['(', '('.repeat(MAX_QUERY_DEPTH - 1), 'x'],
])('the steps of the parser grow as %s does again and again', (piece, before = '', after = '') => {
  const steps = (length: number) => {
    let count = 0
    const tracer = { trace: () => count++ }
    counted.parse(before + piece.repeat(length / piece.length) + after, { maxDepth: MAX_QUERY_DEPTH, tracer })
    return count
  }
  expect(steps(20_000)).toBeLessThan(2.1 * steps(10_000) + 100)
})

it('a text of many times the length that is allowed does not overflow the stack', () => {
  for (const piece of ['(', 'NOT ', 'rev:(', '-', '!', 'rev:(NOT '])
    expect(parse(piece.repeat(100_000), { maxDepth: MAX_QUERY_DEPTH }).node).not.toBeNull()
})
