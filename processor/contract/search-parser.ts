import { FIELD_NAMES, type Field, parseField } from './field.ts'
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
} from './search-query.ts'
import { isBoundOf, isSpanOf } from './search-time.ts'

/**
 * Reads Lucene's syntax, less what makes no sense for statuses (boosts, fuzziness, regular expressions):
 * `field:value`, `field:"a phrase"`, `field:>=5`, `field:[1 TO 5}`, `field:a*`, `field:*`, `_exists_:field`,
 * `field:(a OR b)`, a bare word (the device id contains it), AND, OR, NOT, `&&`, `||`, `!`, `-`, parentheses. What stands
 * side by side is joined by AND; NOT binds closer than AND, AND closer than OR. `\` takes the next character as it is.
 * An empty query fits all. Throws QuerySyntaxError. Takes time in proportion to the length.
 */
export function parseQuery(text: string): Query {
  if (text.length > MAX_QUERY_LENGTH) {
    throw new QuerySyntaxError(`must have at most ${MAX_QUERY_LENGTH} characters`, MAX_QUERY_LENGTH)
  }
  return { root: new Parser(text).query(), text }
}

const SPACE = /\s/
const CLAUSE = 'a field or a device id'
const VALUE = 'a value'
const EXISTS = '_exists_'
const DEVICE_ID = parseField('deviceId') as Field

class Parser {
  readonly #text: string
  #at = 0
  #depth = 0
  #clauses = 0

  constructor(text: string) {
    this.#text = text
  }

  query(): QueryNode {
    this.#skip()
    if (this.#ended) return { kind: 'all' }
    const node = this.#or(undefined)
    if (!this.#ended) this.#fail(this.#peek(')') ? 'closes a parenthesis that was not opened' : 'is not expected here')
    return node
  }

  /** `field`: the one that values are of, within `field:( … )`. */
  #or(field: Field | undefined): QueryNode {
    const nodes = [this.#and(field)]
    while (this.#keyword('OR') || this.#operator('||')) nodes.push(this.#and(field))
    return join('or', nodes)
  }

  #and(field: Field | undefined): QueryNode {
    const nodes = [this.#not(field)]
    for (;;) {
      const told = this.#keyword('AND') || this.#operator('&&')
      if (!told && (this.#ended || this.#peek(')') || this.#peek('||') || this.#isKeyword('OR'))) break
      nodes.push(this.#not(field))
    }
    return join('and', nodes)
  }

  #not(field: Field | undefined): QueryNode {
    const began = this.#at
    // A value may begin with a minus, a clause with a field does not.
    if (!this.#keyword('NOT') && !this.#operator('!') && !(field === undefined && this.#operator('-'))) {
      return this.#clause(field)
    }
    return this.#deeper(began, () => ({ kind: 'not', node: this.#not(field) }))
  }

  #clause(field: Field | undefined): QueryNode {
    const began = this.#at
    if (this.#operator('(')) {
      return this.#deeper(began, () => this.#group(began, field))
    }
    if (++this.#clauses > MAX_QUERY_CLAUSES) this.#fail(`is one condition more than the ${MAX_QUERY_CLAUSES} allowed`)
    if (field !== undefined) {
      // It may be meant as NOT, or as a part of the value; before a digit it is a sign.
      if (/^-(?!\d)/.test(this.#text.slice(began, began + 2)))
        this.#fail('is not clear: NOT excludes a value here, and one that begins with - goes in quotes')
      return this.#value(field)
    }
    if (this.#text.startsWith('*:*', began)) {
      this.#at += 3
      this.#skip()
      return { kind: 'all' }
    }
    if (this.#peek('"')) return this.#bare(this.#phrase())
    this.#expectWord(CLAUSE)
    const word = this.#word(':')
    if (!this.#peek(':')) return this.#bareWord(word)
    const exists = word.text === EXISTS
    const known = exists ? undefined : this.#field(word, began, ' (a device id with a colon goes in quotes)')
    this.#at++
    if (known === undefined) return this.#exists()
    if (this.#ended || SPACE.test(this.#text[this.#at] as string)) this.#fail(`needs a value of ${known.name}`)
    const opened = this.#at
    if (this.#operator('(')) return this.#deeper(opened, () => this.#group(opened, known))
    return this.#value(known)
  }

  #exists(): QueryNode {
    const began = this.#at
    if (this.#ended || SPACE.test(this.#text[began] as string)) this.#fail(`needs a field after ${EXISTS}:`)
    this.#expectWord('a field')
    const field = this.#field(this.#word(''), began)
    this.#skip()
    return { kind: 'exists', field }
  }

  #field({ text, wildcards }: Word, began: number, hint = ''): Field {
    const field = wildcards > 0 ? undefined : parseField(text)
    if (field !== undefined) return field
    const name = JSON.stringify(this.#text.slice(began, this.#at))
    return this.#fail(`${name} is no field${hint}; there are ${FIELD_NAMES}`, began)
  }

  #group(opened: number, field: Field | undefined): QueryNode {
    if (this.#peek(')')) this.#fail('closes parentheses with nothing in them')
    const node = this.#or(field)
    if (!this.#operator(')')) this.#fail('opens a parenthesis that is not closed', opened)
    return node
  }

  #value(field: Field): QueryNode {
    const began = this.#at
    const node = this.#condition(field)
    if (field.kind !== 'group' || node.kind === 'exists') return node
    return this.#fail(`${field.name} is a group: it is there (${field.name}:*), or a field in it is compared`, began)
  }

  #condition(field: Field): Condition {
    for (const comparison of ['>=', '<=', '>', '<']) {
      if (!this.#operator(comparison)) continue
      const bound: Bound = {
        ...this.#operand(field, `a value after ${comparison}`),
        inclusive: comparison.length === 2,
      }
      this.#skip()
      return comparison.startsWith('>')
        ? { kind: 'range', field, low: bound, high: undefined }
        : { kind: 'range', field, low: undefined, high: bound }
    }
    if (this.#peek('[') || this.#peek('{')) return this.#range(field)
    const began = this.#at
    if (this.#peek('"')) return this.#equals(field, { text: this.#phrase(), quoted: true }, began)
    this.#expectWord(VALUE)
    const { text, pattern, wildcards, escaped } = this.#word('')
    this.#skip()
    if (/^\*+$/.test(pattern)) return { kind: 'exists', field }
    if (wildcards > 0) return { kind: 'like', field, pattern }
    return this.#equals(field, { text, quoted: escaped }, began)
  }

  #equals(field: Field, value: Operand, began: number): Condition {
    if (!isBoundOf(field, value.text)) this.#failAsTime(field, value, began)
    if (!isSpanOf(field, value.text)) return { kind: 'equals', field, value }
    const bound = { ...value, inclusive: true }
    return { kind: 'range', field, low: bound, high: bound }
  }

  #range(field: Field): Condition {
    const began = this.#at
    const lowInclusive = this.#text[this.#at++] === '['
    this.#skip()
    const low = this.#bound(field, lowInclusive)
    if (!this.#keyword('TO')) this.#fail('must be TO, as in [1 TO 5]')
    const high = this.#bound(field, true)
    if (this.#ended) this.#fail('opens a range that is not closed', began)
    if (!this.#peek(']') && !this.#peek('}')) this.#fail('must be ] or }, the end of the range')
    const highInclusive = this.#peek(']')
    this.#at++
    this.#skip()
    if (low === undefined && high === undefined) return { kind: 'exists', field }
    return { kind: 'range', field, low, high: high && { ...high, inclusive: highInclusive } }
  }

  /** Undefined for `*`: no bound. */
  #bound(field: Field, inclusive: boolean): Bound | undefined {
    if (this.#operator('*')) return undefined
    const operand = this.#operand(field, 'a bound of the range')
    this.#skip()
    return { ...operand, inclusive }
  }

  #operand(field: Field, what: string): Operand {
    const began = this.#at
    const operand = this.#peek('"') ? { text: this.#phrase(), quoted: true } : this.#unquoted(what)
    return isBoundOf(field, operand.text) ? operand : this.#failAsTime(field, operand, began)
  }

  #failAsTime(field: Field, { text }: Operand, began: number): never {
    const wrong = `${JSON.stringify(text)} is no time: ${field.name} is compared with one`
    return this.#fail(`${wrong} like 2026-11-24T09:00:00Z, or with the beginning of one`, began)
  }

  #unquoted(what: string): Operand {
    this.#expectWord(what)
    const began = this.#at
    const { text, wildcards, escaped } = this.#word('')
    if (wildcards > 0) this.#fail('has a wildcard, which has no order', began)
    return { text, quoted: escaped }
  }

  #bareWord({ text, pattern, wildcards }: Word): QueryNode {
    this.#skip()
    if (/^\*+$/.test(pattern)) return { kind: 'all' }
    return wildcards > 0 ? { kind: 'like', field: DEVICE_ID, pattern } : this.#bare(text)
  }

  #bare(text: string): QueryNode {
    if (text === '') return { kind: 'all' }
    return { kind: 'like', field: DEVICE_ID, pattern: `*${escapeInner(text)}*` }
  }

  #phrase(): string {
    const began = this.#at++
    let text = ''
    for (; !this.#ended; this.#at++) {
      let character = this.#text[this.#at] as string
      if (character === '"') {
        this.#at++
        if (!this.#ended && !/[\s)\]}]/.test(this.#text[this.#at] as string))
          this.#fail('follows a phrase without a space')
        this.#skip()
        return text
      }
      if (character === '\\' && this.#at + 1 < this.#text.length) character = this.#text[++this.#at] as string
      text += character
    }
    return this.#fail('opens a phrase that is not closed', began)
  }

  /** Up to a space, a parenthesis, a bracket, a quote, or one of `end`. */
  #word(end: string): Word {
    const began = this.#at
    let text = ''
    let pattern = ''
    let wildcards = 0
    let escaped = false
    for (; !this.#ended; this.#at++) {
      let character = this.#text[this.#at] as string
      if (SPACE.test(character) || '()[]{}"'.includes(character) || end.includes(character)) break
      if (character === '*' || character === '?') {
        if (++wildcards > MAX_WILDCARDS)
          this.#fail(`is one wildcard more than the ${MAX_WILDCARDS} allowed in a pattern`)
        pattern += character
        text += character
        continue
      }
      if (character === '~' || character === '^')
        this.#fail(`${character} is not supported (nor are fuzziness and boosts); escape it as \\${character}`)
      if (character === '\\') {
        if (++this.#at === this.#text.length)
          this.#fail('must be followed by the character that it escapes', this.#at - 1)
        character = this.#text[this.#at] as string
        escaped = true
      }
      text += character
      pattern += escapeInner(character)
    }
    if (wildcards > 0 && pattern.length > MAX_PATTERN_LENGTH) {
      this.#fail(`is a pattern of more than ${MAX_PATTERN_LENGTH} characters`, began)
    }
    if (wildcards > 0) pattern = pattern.replace(/^[-+!<>=/&|]/, '\\$&')
    if (this.#at === began) this.#fail('is not expected here')
    return { text, pattern, wildcards, escaped }
  }

  #expectWord(what: string): void {
    if (this.#ended) this.#fail(`the query ends where ${what} is expected`)
    const character = this.#text[this.#at] as string
    if (character === '/') this.#fail('begins a regular expression, which is not supported: use * and ?')
    const clause = what === CLAUSE
    if (clause && character === '+') this.#fail('is not needed: what stands side by side must all hold')
    if (!clause && '+!'.includes(character)) this.#fail(`begins ${what}: there it goes in quotes, or \\ before it`)
    const misplaced = `)]}<>=([{"${clause ? ':' : ''}`.includes(character) || this.#peek('&&') || this.#peek('||')
    if (misplaced) this.#fail(`stands where ${what} is expected`)
    if ((clause || what === VALUE) && ['AND', 'OR', 'NOT'].some((keyword) => this.#isKeyword(keyword))) {
      this.#fail(`stands where ${what} is expected (the word itself goes in quotes)`)
    }
  }

  #deeper(began: number, read: () => QueryNode): QueryNode {
    if (++this.#depth > MAX_QUERY_DEPTH) this.#fail(`is nested deeper than ${MAX_QUERY_DEPTH}`, began)
    const node = read()
    this.#depth--
    return node
  }

  get #ended(): boolean {
    return this.#at >= this.#text.length
  }

  #skip(): void {
    while (!this.#ended && SPACE.test(this.#text[this.#at] as string)) this.#at++
  }

  #peek(text: string): boolean {
    return this.#text.startsWith(text, this.#at)
  }

  #operator(text: string): boolean {
    if (!this.#peek(text)) return false
    this.#at += text.length
    this.#skip()
    return true
  }

  #isKeyword(word: string): boolean {
    const after = this.#text[this.#at + word.length]
    return this.#peek(word) && (after === undefined || /[\s()]/.test(after))
  }

  #keyword(word: string): boolean {
    return this.#isKeyword(word) && this.#operator(word)
  }

  #fail(message: string, position = this.#at): never {
    throw new QuerySyntaxError(message, position)
  }
}

interface Word {
  /** Without the escapes. */
  readonly text: string
  /** With the escapes that it needs, see `escapeWord`. */
  readonly pattern: string
  readonly wildcards: number
  readonly escaped: boolean
}

/** Nested ANDs and ORs become flat. */
function join(kind: 'and' | 'or', nodes: readonly QueryNode[]): QueryNode {
  if (nodes.length === 1) return nodes[0] as QueryNode
  return { kind, nodes: nodes.flatMap((node) => (node.kind === kind ? node.nodes : [node])) }
}
