import type { Field } from './field.ts'

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
