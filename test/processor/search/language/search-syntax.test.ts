import { readFileSync } from 'node:fs'
import { isDeepStrictEqual } from 'node:util'
import peggy from 'peggy'
import { expect, it } from 'vitest'
import { MAX_QUERY_DEPTH } from '../../../../processor/contract/search.ts'
import { parse } from '../../../../processor/search/language/generated/grammar.js'

const LANGUAGE = new URL('../../../../processor/search/language/', import.meta.url)
const source = (name: string) => readFileSync(new URL(name, LANGUAGE), 'utf8')
const grammar = source('grammar.peggy')
const counted = peggy.generate(grammar, { trace: true })
const read = (query: string) => parse(query, { maxDepth: MAX_QUERY_DEPTH })

it('the committed parser is what the grammar makes (npm run generate)', () => {
  expect(source('generated/grammar.js') === peggy.generate(grammar, { output: 'source', format: 'es' })).toBe(true)
})

it('space between words is what \\s is', () => {
  const characters = Array.from({ length: 0x10000 }, (_, code) => String.fromCharCode(code))
  const spaces = characters.filter((character) => isDeepStrictEqual(read(`a${character}b`), read('a b')))
  expect(spaces).toEqual(characters.filter((character) => /\s/.test(character)))
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
    expect(read(piece.repeat(100_000)).node).not.toBeNull()
})
