/**
 * What the grammar (`grammar.peggy`) yields: a query as it was written. `at`: where it begins, from 0, in UTF-16
 * code units. Behind what is wrong there may be more that is: the first counts.
 */
export interface Written {
  /** Null: nothing but space. */
  readonly node: Tree<Clause> | null
  readonly wrong: Wrong | null
}

export type Tree<Leaf> =
  | Leaf
  | { readonly kind: 'and'; readonly nodes: readonly Tree<Leaf>[] }
  | { readonly kind: 'or'; readonly nodes: readonly Tree<Leaf>[] }
  | { readonly kind: 'not'; readonly node: Tree<Leaf> }
  | Group<Leaf>
  | Wrong

/** Parentheses. */
interface Group<Leaf> {
  readonly kind: 'group'
  readonly at: number
  readonly node: Tree<Leaf>
  readonly closed: boolean
}

/** A word or a phrase alone: the device id contains it. */
export type Clause =
  | { readonly kind: 'everything'; readonly at: number }
  | { readonly kind: 'exists'; readonly at: number; readonly field: Word | Missing | Nothing }
  | { readonly kind: 'field'; readonly at: number; readonly name: Word; readonly value: Asked }
  | Phrase
  | Word
  | Missing

/** What is asked of a field. */
export type Asked = Value | Group<Value> | Wrong | Nothing

export type Value =
  | { readonly kind: 'comparison'; readonly at: number; readonly sign: '>=' | '<=' | '>' | '<'; readonly operand: Text }
  | Range
  | Text

export interface Range {
  readonly kind: 'range'
  readonly at: number
  readonly open: '[' | '{'
  readonly low: Text | Unbounded
  /** What stands in the place of TO. */
  readonly wrong: Wrong | null
  readonly high: Text | Unbounded
  readonly close: ']' | '}' | Missing
}

export type Text = Phrase | Word | Missing

export interface Unbounded {
  readonly kind: 'unbounded'
}

export interface Phrase {
  readonly kind: 'phrase'
  readonly at: number
  readonly text: string
  readonly closed: boolean
  readonly wrong: Wrong | null
}

export interface Word {
  readonly kind: 'word'
  readonly at: number
  /** With its escapes. */
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

/** Something else stands, or the text ends, where `expected` had to stand. */
export interface Missing {
  readonly kind: 'missing'
  readonly at: number
  readonly expected: string
  /** The character that stands there; empty at the end. */
  readonly found: string
}

interface Wrong {
  readonly kind: 'wrong'
  readonly at: number
  readonly message: string
}
