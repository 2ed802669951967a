import { type Field, valueOf } from '../../contract/field.ts'
import type { Json } from '../../contract/json.ts'
import { compareText } from '../../contract/order.ts'
import type { Bound, Condition, Operand, Query, QueryNode } from '../../contract/search.ts'
import type { Status } from '../../contract/status.ts'
import { Pattern, type Work } from './pattern.ts'
import { boundText, textFor } from './time-text.ts'

/** A longer text fits no pattern. */
const MAX_LIKE_LENGTH = 4096

/** The value of each field by its number; undefined when the status lacks it. */
type Values = readonly (Json | undefined)[]

type Test = (values: Values) => boolean

/** A query prepared for many statuses. */
export class Matcher {
  /** The fields whose values `test` needs. */
  readonly fields: readonly Field[]
  readonly test: Test
  readonly #work: Work = { steps: 0 }

  constructor({ root }: Pick<Query, 'root'>) {
    const fields: Field[] = []
    this.test = compile(root, fields, this.#work)
    this.fields = fields
  }

  matches(status: Status): boolean {
    return this.test(this.fields.map((field) => valueOf(field, status)))
  }

  /**
   * Returns the work of comparing patterns since the last call, in bytes of JSON. Everything else is little beside it.
   */
  takeWork(): number {
    const { steps } = this.#work
    this.#work.steps = 0
    return steps
  }
}

function compile(node: QueryNode, fields: Field[], work: Work): Test {
  switch (node.kind) {
    case 'all':
      return () => true
    case 'not': {
      const test = compile(node.node, fields, work)
      return (values) => !test(values)
    }
    case 'and': {
      const tests = node.nodes.map((part) => compile(part, fields, work))
      return (values) => tests.every((test) => test(values))
    }
    case 'or': {
      const tests = node.nodes.map((part) => compile(part, fields, work))
      return (values) => tests.some((test) => test(values))
    }
    case 'exists':
    case 'equals':
    case 'like':
    case 'range':
      break
  }
  return condition(node, placeOf(node.field, fields), work)
}

function placeOf(field: Field, fields: Field[]): number {
  const known = fields.findIndex(({ name }) => name === field.name)
  return known >= 0 ? known : fields.push(field) - 1
}

function condition(node: Condition, place: number, work: Work): Test {
  if (node.kind === 'exists') return (values) => values[place] !== undefined
  const holds = scalarTest(node, work)
  return (values) => {
    const value = values[place]
    if (value === undefined) return false
    return Array.isArray(value) ? value.some(holds) : holds(value)
  }
}

function scalarTest(node: Exclude<Condition, { kind: 'exists' }>, work: Work): (value: Json) => boolean {
  if (node.kind === 'equals') return equalTo(node.field, node.value)
  if (node.kind === 'range') return between(node.field, node.low, node.high)
  const pattern = new Pattern(node.pattern)
  return (value) => typeof value === 'string' && value.length <= MAX_LIKE_LENGTH && pattern.fits(value, work)
}

function between(field: Field, from: Bound | undefined, to: Bound | undefined): (value: Json) => boolean {
  const low = from === undefined ? undefined : beside(field, from, 'low')
  const high = to === undefined ? undefined : beside(field, to, 'high')
  return (value) => {
    if (typeof value !== 'number' && typeof value !== 'string') return false
    return (low === undefined || low(value) >= 0) && (high === undefined || high(value) <= 0)
  }
}

/** Values other than texts that equal an operand. */
export function scalarOf({ text, quoted }: Operand): number | boolean | null | undefined {
  if (quoted) return undefined
  if (text === 'true' || text === 'false') return text === 'true'
  if (text === 'null') return null
  return numberOf(text)
}

function equalTo(field: Field, operand: Operand): (value: Json) => boolean {
  const text = textFor(field, operand)
  const scalar = scalarOf(operand)
  return (value) => value === text || (scalar !== undefined && value === scalar)
}

/** Compares a value with the bound. NaN when they cannot be compared, or when the bound is excluded and equal. */
function beside(field: Field, bound: Bound, end: 'low' | 'high'): (value: number | string) => number {
  const text = boundText(field, bound, end)
  const number = bound.quoted ? undefined : numberOf(bound.text)
  return (value) => {
    if (typeof value === 'number' && number === undefined) return Number.NaN
    const difference = typeof value === 'number' ? value - (number as number) : compareText(value, text)
    return difference === 0 && !bound.inclusive ? Number.NaN : difference
  }
}

const NUMBER = /^-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?$/

function numberOf(text: string): number | undefined {
  const number = NUMBER.test(text) ? Number(text) : Number.NaN
  return Number.isFinite(number) ? number : undefined
}
