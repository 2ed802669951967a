import type { Field } from './field.ts'
import type { Order, SortKey } from './order.ts'
import type { Freshness } from './query.ts'
import type { Offset } from './record.ts'
import type { SummaryJson } from './summary.ts'

export interface Operand {
  readonly text: string
  /**
   * A text in quotes or with escapes compares with texts only. A plain word compares with a text, a number and so on.
   */
  readonly quoted: boolean
}

export interface Bound extends Operand {
  readonly inclusive: boolean
}

/** A condition on statuses. On a list it holds when it holds for one of the elements. */
export type QueryNode =
  | { readonly kind: 'all' }
  | { readonly kind: 'and' | 'or'; readonly nodes: readonly QueryNode[] }
  | { readonly kind: 'not'; readonly node: QueryNode }
  | Condition

/** `exists`: the field is there, null included. `like`: a text fits the pattern, see `escapeWord`. */
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

/**
 * `text` is the source of the query, and crosses processes as such: the canonical form can be a hundred times as long.
 */
export interface Query {
  readonly root: QueryNode
  readonly text: string
}

/** `position`: index of the first wrong character, from 0, in UTF-16 code units. */
export class QuerySyntaxError extends Error {
  readonly position: number

  constructor(message: string, position: number) {
    super(message)
    this.name = 'QuerySyntaxError'
    this.position = position
  }
}

/** A query beyond these bounds is refused with a QuerySyntaxError. */
export const MAX_QUERY_LENGTH = 2048
/** Nesting of parentheses and NOTs. */
export const MAX_QUERY_DEPTH = 16
export const MAX_QUERY_CLAUSES = 64
/**
 * Bounds of one pattern: its `*` and `?`, and its characters. With MAX_LIKE_LENGTH they bound the time of a comparison.
 */
export const MAX_WILDCARDS = 16
export const MAX_PATTERN_LENGTH = 256

/** Prints the canonical form. `parseQuery` reads it back to the same query, unless it is too long. */
export function printQuery({ root }: Pick<Query, 'root'>): string {
  return root.kind === 'all' ? '' : print(root, 'or')
}

/** `within`: the surrounding operator, which decides about parentheses. */
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
 * Escapes `text` as a word in which nothing is special. A pattern joins such words with `*` (any characters) and `?`
 * (one character).
 */
function escapeWord(text: string): string {
  return escapeInner(text).replace(/^[-+!<>=/&|]|^(?=(?:AND|OR|NOT|TO)$)/, '\\$&')
}

/** Escapes `text` within a word. */
export function escapeInner(text: string): string {
  return text.replace(/[\s\\:"()[\]{}^~*?]/g, '\\$&')
}

/** The place where a page ended: after the device with this key and id. */
export interface Place {
  readonly key: SortKey
  readonly deviceId: string
}

export interface Selection {
  readonly query: Query
  /** Only ids that begin with one of these: ascending, none a prefix of another. Undefined: all. */
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
  /** Devices found in order after `after`: the first `limit` of those examined. */
  readonly items: readonly { readonly deviceId: string; readonly status: Uint8Array }[]
  /** Everything found later comes after everything found so far. */
  readonly settled: boolean
  /** More was found after the last of `items`. Ask for it by `after`. */
  readonly more: boolean
  /** Where to go on. Undefined: everything was examined. */
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
  /** Summarizes the devices that this slice examined. */
  readonly summary: SummaryJson
  readonly next: string | undefined
  readonly freshness: Freshness
}

/** Fields in `by`, and metrics, of one summary. */
export const MAX_SUMMARY_FIELDS = 4
