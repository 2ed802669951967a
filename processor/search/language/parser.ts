import { FIELD_NAMES, type Field, parseField } from '../../contract/field.ts'
import {
  type Bound,
  type Condition,
  escapeInner,
  MAX_PATTERN_LENGTH,
  MAX_QUERY_CLAUSES,
  MAX_QUERY_DEPTH,
  MAX_QUERY_LENGTH,
  MAX_WILDCARDS,
  type Operand,
  type Query,
  type QueryNode,
  QuerySyntaxError,
} from '../../contract/search.ts'
import { parse } from './generated/grammar.js'
import { isBoundOf, isSpanOf } from './time-text.ts'

/**
 * A query as the grammar (`grammar.peggy`) reads it. `at`: its start, from 0, in UTF-16 code units. Of several mistakes
 * the first counts.
 */
export interface Written {
  /** Null: only white space. */
  readonly node: Tree<Clause> | null
  readonly wrong: Wrong | null
}

type Tree<Leaf> =
  | Leaf
  | { readonly kind: 'and'; readonly nodes: readonly Tree<Leaf>[] }
  | { readonly kind: 'or'; readonly nodes: readonly Tree<Leaf>[] }
  | { readonly kind: 'not'; readonly node: Tree<Leaf> }
  | Group<Leaf>
  | Wrong

/** A group in parentheses. */
interface Group<Leaf> {
  readonly kind: 'group'
  readonly at: number
  readonly node: Tree<Leaf>
  readonly closed: boolean
}

/** A word or a phrase alone is looked for in the device id. */
type Clause =
  | { readonly kind: 'everything'; readonly at: number }
  | { readonly kind: 'exists'; readonly at: number; readonly field: Word | Missing | Nothing }
  | { readonly kind: 'field'; readonly at: number; readonly name: Word; readonly value: Asked }
  | Phrase
  | Word
  | Missing

/** The part after the colon of a field. */
type Asked = Value | Group<Value> | Wrong | Nothing

type Value =
  | { readonly kind: 'comparison'; readonly at: number; readonly sign: '>=' | '<=' | '>' | '<'; readonly operand: Text }
  | Range
  | Text

interface Range {
  readonly kind: 'range'
  readonly at: number
  readonly open: '[' | '{'
  readonly low: Text | Unbounded
  /** The text in the place of TO. */
  readonly wrong: Wrong | null
  readonly high: Text | Unbounded
  readonly close: ']' | '}' | Missing
}

type Text = Phrase | Word | Missing

interface Unbounded {
  readonly kind: 'unbounded'
}

interface Phrase {
  readonly kind: 'phrase'
  readonly at: number
  readonly text: string
  readonly closed: boolean
  readonly wrong: Wrong | null
}

interface Word {
  readonly kind: 'word'
  readonly at: number
  /** The text with its escapes. */
  readonly written: string
  readonly text: string
  readonly pieces: readonly (Piece | Wrong)[]
}

interface Piece {
  readonly kind: 'plain' | 'escaped' | 'wildcard'
  readonly at: number
  readonly text: string
}

/** A space after the colon, or the end. */
interface Nothing {
  readonly kind: 'nothing'
  readonly at: number
}

/** Something else, or the end, where `expected` had to stand. */
interface Missing {
  readonly kind: 'missing'
  readonly at: number
  readonly expected: string
  /** The character found there; empty at the end. */
  readonly found: string
}

interface Wrong {
  readonly kind: 'wrong'
  readonly at: number
  readonly message: string
}

/**
 * Reads Lucene's syntax, as `grammar.peggy` has it: `field:value`, `field:"a phrase"`, `field:>=5`,
 * `field:[1 TO 5}`, `field:a*`, `field:*`, `_exists_:field`, `field:(a OR b)`, a bare word (the device id contains it),
 * AND, OR, NOT, `&&`, `||`, `!`, `-`, parentheses. An empty query fits all. Throws QuerySyntaxError. Takes time in
 * proportion to the length.
 */
export function parseQuery(text: string): Query {
  if (text.length > MAX_QUERY_LENGTH) fail(`must have at most ${MAX_QUERY_LENGTH} characters`, MAX_QUERY_LENGTH)
  const { node, wrong } = parse(text, { maxDepth: MAX_QUERY_DEPTH })
  const root: QueryNode = node === null ? { kind: 'all' } : new Reader().query(node)
  if (wrong !== null) fail(wrong.message, wrong.at)
  return { root, text }
}

const DEVICE_ID = parseField('deviceId') as Field
const EXISTS = '_exists_'

/** Walks a tree in the order in which it was written, so that the first mistake is reported. */
class Reader {
  #clauses = 0

  query(node: Tree<Clause>): QueryNode {
    return this.#node(node, (clause) => this.#clause(clause))
  }

  #node<Leaf extends Clause | Value>(node: Tree<Leaf>, read: (leaf: Leaf) => QueryNode): QueryNode {
    if (node.kind === 'and' || node.kind === 'or') {
      const nodes = node.nodes.map((part) => this.#node(part, read))
      return join(node.kind, nodes)
    }
    if (node.kind === 'not') return { kind: 'not', node: this.#node(node.node, read) }
    if (node.kind === 'group') {
      const within = this.#node(node.node, read)
      return node.closed ? within : fail('opens a parenthesis that is not closed', node.at)
    }
    if (node.kind === 'wrong') return fail(node.message, node.at)
    if (++this.#clauses > MAX_QUERY_CLAUSES) {
      fail(`is one condition more than the ${MAX_QUERY_CLAUSES} allowed`, node.at)
    }
    return read(node)
  }

  #clause(clause: Clause): QueryNode {
    switch (clause.kind) {
      case 'everything':
        return { kind: 'all' }
      case 'exists':
        if (clause.field.kind === 'nothing') return fail(`needs a field after ${EXISTS}:`, clause.field.at)
        if (clause.field.kind === 'missing') return refuse(clause.field)
        return { kind: 'exists', field: readField(clause.field) }
      case 'field':
        return this.#field(clause.value, readField(clause.name, ' (a device id with a colon goes in quotes)'))
      case 'phrase':
        return bare(readPhrase(clause))
      case 'word':
        return bareWord(readWord(clause))
      case 'missing':
        break
    }
    return refuse(clause)
  }

  #field(asked: Asked, field: Field): QueryNode {
    if (asked.kind === 'nothing') return fail(`needs a value of ${field.name}`, asked.at)
    const read = (value: Value) => readValue(value, field)
    return asked.kind === 'group' || asked.kind === 'wrong' ? this.#node(asked, read) : read(asked)
  }
}

function readField(word: Word, hint = ''): Field {
  const { text, pattern } = readWord(word)
  const field = pattern === undefined ? parseField(text) : undefined
  return field ?? fail(`${JSON.stringify(word.written)} is no field${hint}; there are ${FIELD_NAMES}`, word.at)
}

function readValue(value: Value, field: Field): Condition {
  const condition = readCondition(value, field)
  if (field.kind !== 'group' || condition.kind === 'exists') return condition
  return fail(`${field.name} is a group: it is there (${field.name}:*), or a field in it is compared`, value.at)
}

function readCondition(value: Value, field: Field): Condition {
  switch (value.kind) {
    case 'comparison': {
      const bound: Bound = { ...readOperand(value.operand, field), inclusive: value.sign.length === 2 }
      return value.sign.startsWith('>')
        ? { kind: 'range', field, low: bound, high: undefined }
        : { kind: 'range', field, low: undefined, high: bound }
    }
    case 'range':
      return readRange(value, field)
    case 'phrase':
      return equals({ text: readPhrase(value), quoted: true }, field, value.at)
    case 'word': {
      const { text, pattern, escaped } = readWord(value)
      if (pattern === undefined) return equals({ text, quoted: escaped }, field, value.at)
      return ANYTHING.test(pattern) ? { kind: 'exists', field } : { kind: 'like', field, pattern }
    }
    case 'missing':
      break
  }
  return refuse(value)
}

function readRange(range: Range, field: Field): Condition {
  const low = readBound(range.low, field, range.open === '[')
  if (range.wrong !== null) fail(range.wrong.message, range.wrong.at)
  const high = readBound(range.high, field, range.close === ']')
  if (typeof range.close !== 'string') {
    const { found, at } = range.close
    return found === ''
      ? fail('opens a range that is not closed', range.at)
      : fail('must be ] or }, the end of the range', at)
  }
  return low === undefined && high === undefined ? { kind: 'exists', field } : { kind: 'range', field, low, high }
}

function readBound(bound: Text | Unbounded, field: Field, inclusive: boolean): Bound | undefined {
  return bound.kind === 'unbounded' ? undefined : { ...readOperand(bound, field), inclusive }
}

function readOperand(operand: Text, field: Field): Operand {
  const read = operand.kind === 'phrase' ? { text: readPhrase(operand), quoted: true } : readUnquoted(operand)
  return inOrder(read, field, operand.at)
}

function readUnquoted(operand: Word | Missing): Operand {
  if (operand.kind === 'missing') return refuse(operand)
  const { text, pattern, escaped } = readWord(operand)
  return pattern === undefined ? { text, quoted: escaped } : fail('has a wildcard, which has no order', operand.at)
}

function equals(value: Operand, field: Field, at: number): Condition {
  inOrder(value, field, at)
  if (!isSpanOf(field, value.text)) return { kind: 'equals', field, value }
  const bound = { ...value, inclusive: true }
  return { kind: 'range', field, low: bound, high: bound }
}

function inOrder(value: Operand, field: Field, at: number): Operand {
  if (isBoundOf(field, value.text)) return value
  const wrong = `${JSON.stringify(value.text)} is no time: ${field.name} is compared with one`
  return fail(`${wrong} like 2026-11-24T09:00:00Z, or with the beginning of one`, at)
}

function bareWord({ text, pattern }: Meaning): QueryNode {
  if (pattern === undefined) return bare(text)
  return ANYTHING.test(pattern) ? { kind: 'all' } : { kind: 'like', field: DEVICE_ID, pattern }
}

function bare(text: string): QueryNode {
  return text === '' ? { kind: 'all' } : { kind: 'like', field: DEVICE_ID, pattern: `*${escapeInner(text)}*` }
}

function readPhrase({ at, text, closed, wrong }: Phrase): string {
  if (!closed) return fail('opens a phrase that is not closed', at)
  return wrong === null ? text : fail(wrong.message, wrong.at)
}

interface Meaning {
  /** The text without escapes. */
  readonly text: string
  /** The text with the escapes that it needs, see `escapeWord`. Undefined: it has no wildcards. */
  readonly pattern: string | undefined
  readonly escaped: boolean
}

const ANYTHING = /^\*+$/

function readWord({ at, text, pieces }: Word): Meaning {
  let pattern = ''
  let wildcards = 0
  for (const piece of pieces) {
    if (piece.kind === 'wrong') return fail(piece.message, piece.at)
    if (piece.kind === 'wildcard' && ++wildcards > MAX_WILDCARDS)
      fail(`is one wildcard more than the ${MAX_WILDCARDS} allowed in a pattern`, piece.at)
    pattern += piece.kind === 'wildcard' ? piece.text : escapeInner(piece.text)
  }
  const escaped = pieces.some(({ kind }) => kind === 'escaped')
  if (wildcards === 0) return { text, pattern: undefined, escaped }
  if (pattern.length > MAX_PATTERN_LENGTH) fail(`is a pattern of more than ${MAX_PATTERN_LENGTH} characters`, at)
  return { text, pattern: pattern.replace(/^[-+!<>=/&|]/, '\\$&'), escaped }
}

function refuse({ at, expected, found }: Missing): never {
  if (found === '') return fail(`the query ends where ${expected} is expected`, at)
  if (found === '/') return fail('begins a regular expression, which is not supported: use * and ?', at)
  if (found === '-')
    return fail('is not clear: NOT excludes a value here, and one that begins with - goes in quotes', at)
  if (found === '+' && expected === 'a field or a device id')
    return fail('is not needed: what stands side by side must all hold', at)
  if (found === '+' || found === '!') return fail(`begins ${expected}: there it goes in quotes, or \\ before it`, at)
  const keyword = /[A-Z]/.test(found) ? ' (the word itself goes in quotes)' : ''
  return fail(`stands where ${expected} is expected${keyword}`, at)
}

function fail(message: string, position: number): never {
  throw new QuerySyntaxError(message, position)
}

/** Nested ANDs and ORs become flat. */
function join(kind: 'and' | 'or', nodes: readonly QueryNode[]): QueryNode {
  if (nodes.length === 1) return nodes[0] as QueryNode
  return { kind, nodes: nodes.flatMap((node) => (node.kind === kind ? node.nodes : [node])) }
}
