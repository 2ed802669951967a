import type { Field } from './field.ts'
import type { Order, SortKey } from './order.ts'
import type { Freshness } from './query.ts'
import type { Offset } from './record.ts'
import type { SummaryJson } from './summary.ts'

/** What to compare with. */
export interface Operand {
  readonly text: string
  /** In quotes or with escapes: compared with texts only. A plain word is compared as what is there: text, number, … */
  readonly quoted: boolean
}

export interface Bound extends Operand {
  readonly inclusive: boolean
}

/** What a status must satisfy. Conditions on a list hold when they hold for one of its elements. */
export type QueryNode =
  | { readonly kind: 'all' }
  | { readonly kind: 'and' | 'or'; readonly nodes: readonly QueryNode[] }
  | { readonly kind: 'not'; readonly node: QueryNode }
  | Condition

/** `exists`: the field is there, null included. `like`: a text that fits the pattern, see `escapeWord`. */
export type Condition =
  | { readonly kind: 'exists'; readonly field: Field }
  | { readonly kind: 'equals'; readonly field: Field; readonly value: Operand }
  | { readonly kind: 'like'; readonly field: Field; readonly pattern: string }
  | {
      readonly kind: 'range'
      readonly field: Field
      readonly low: Bound | undefined
      readonly high: Bound | undefined
    }

/** `text`: what it was read of. It crosses as that: the canonical form can be a hundred times as long, beyond the bounds. */
export interface Query {
  readonly root: QueryNode
  readonly text: string
}

/** `position`: of the first character that is wrong, from 0, in UTF-16 code units. */
export class QuerySyntaxError extends Error {
  readonly position: number

  constructor(message: string, position: number) {
    super(message)
    this.name = 'QuerySyntaxError'
    this.position = position
  }
}

/** Bounds of a query; beyond them it is refused with a QuerySyntaxError. */
export const MAX_QUERY_LENGTH = 2048
/** Parentheses and NOTs within each other. */
export const MAX_QUERY_DEPTH = 16
export const MAX_QUERY_CLAUSES = 64
/** `*` and `?` in one pattern, and its characters: with MAX_LIKE_LENGTH they bound the time of one comparison. */
export const MAX_WILDCARDS = 16
export const MAX_PATTERN_LENGTH = 256

/** The query in its one canonical form. `parseQuery` reads it back to the same, unless it is too long for that. */
export function printQuery({ root }: Pick<Query, 'root'>): string {
  return root.kind === 'all' ? '' : print(root, 'or')
}

/** `within`: the operator around, which says whether parentheses are needed. */
function print(node: QueryNode, within: 'or' | 'and' | 'not'): string {
  switch (node.kind) {
    case 'all':
      return '*'
    case 'or': {
      const text = node.nodes.map((part) => print(part, 'or')).join(' OR ')
      return within === 'or' ? text : `(${text})`
    }
    case 'and': {
      const text = node.nodes.map((part) => print(part, 'and')).join(' AND ')
      return within === 'not' ? `(${text})` : text
    }
    case 'not':
      return `NOT ${print(node.node, 'not')}`
    case 'exists':
    case 'equals':
    case 'like':
    case 'range':
      break
  }
  return `${escapeWord(node.field.name)}:${printCondition(node)}`
}

function printCondition(condition: Condition): string {
  if (condition.kind === 'exists') return '*'
  if (condition.kind === 'equals') return printOperand(condition.value)
  if (condition.kind === 'like') return condition.pattern
  const { low, high } = condition
  const from = `${low?.inclusive === false ? '{' : '['}${low === undefined ? '*' : printOperand(low)}`
  return `${from} TO ${high === undefined ? '*' : printOperand(high)}${high?.inclusive === false ? '}' : ']'}`
}

function printOperand({ text, quoted }: Operand): string {
  return quoted ? `"${text.replace(/["\\]/g, '\\$&')}"` : text
}

/**
 * `text` as a word of a query in which nothing is special. A pattern is such words with `*` (any characters, or none) and
 * `?` (one character) between them.
 */
function escapeWord(text: string): string {
  return escapeInner(text).replace(/^[-+!<>=/&|]|^(?=(?:AND|OR|NOT|TO)$)/, '\\$&')
}

/** `text` within a word. */
export function escapeInner(text: string): string {
  return text.replace(/[\s\\:"()[\]{}^~*?]/g, '\\$&')
}

/** Where in an order a page ended: after the device of that key and id. */
export interface Place {
  readonly key: SortKey
  readonly deviceId: string
}

/** Which devices of a partition are meant. */
export interface Selection {
  readonly query: Query
  /** Only ids that begin with one of these: ascending, none of them the beginning of another. Undefined: all. */
  readonly within: readonly string[] | undefined
}

/**
 * What is asked of one partition. A copy works on it for a bounded time and answers with what it has found, and where to
 * go on (`from`): whoever asks puts the slices together, and may go on at another copy. `reached`: the position in the
 * changelog that an earlier slice held; a copy that holds it does not answer from an older state.
 */
export interface SearchQuestion extends Selection {
  readonly partition: number
  readonly order: Order
  readonly after: Place | undefined
  readonly from: string | undefined
  readonly reached?: Offset | undefined
  readonly limit: number
}

export interface SearchSlice {
  /** Those found, in order, after `after`; the first `limit` of what was examined. */
  readonly items: readonly { readonly deviceId: string; readonly status: Uint8Array }[]
  /** What is found further on comes after all that was found until now. */
  readonly settled: boolean
  /** More was found after the last of `items`, which is not in them: ask for it by `after`. */
  readonly more: boolean
  /** Where to go on; undefined: all has been examined. */
  readonly next: string | undefined
  readonly freshness: Freshness
}

export interface SummaryQuestion extends Selection {
  readonly partition: number
  readonly by: readonly Field[]
  readonly metrics: readonly Field[]
  readonly from: string | undefined
  readonly reached?: Offset | undefined
}

export interface SummarySlice {
  /** Of what was examined in this slice. */
  readonly summary: SummaryJson
  readonly next: string | undefined
  readonly freshness: Freshness
}

/** Most fields in `by`, and most metrics, of one summary. */
export const MAX_SUMMARY_FIELDS = 4
