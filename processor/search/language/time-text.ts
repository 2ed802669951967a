import type { Field } from '../../contract/field.ts'
import type { Bound, Operand } from '../../contract/search.ts'
import { parseTime } from '../../contract/time.ts'

const TIME_MEMBERS = new Set(['firstSeenAt', 'lastSeenAt', 'since'])
/** A time with any fraction of a second and a zone. */
const ZONED_TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d(?::\d\d(?:\.\d{1,3}(\d{0,6}))?)?(?:Z|[+-]\d\d:\d\d)$/
/** The beginning of a time up to its milliseconds, and the digits beyond them. */
const FINE_BEGINNING = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3})(\d{1,6})$/
/** A beginning of a time that ends with a whole part. `2026-11-3` could mean the third or the thirtieth. */
const BEGINNING = /^\d{4}(?:-\d\d(?:-\d\d(?:T\d\d(?::\d\d(?::\d\d(?:\.\d{1,9})?)?)?)?)?)?$/
/** Completes a beginning. */
const SOME_TIME = '2000-01-01T00:00:00.000000000Z'
/** A shorter text may be the value of a metric called `x.at`: a year can be a number or begin a name. */
const MONTH = 'YYYY-MM'.length
/** Sorts after every character of a time. */
const AFTER = '~'

/** Compares a time with a zone as the moment it is, with a field that is a time: those all have one form. */
export function textFor(field: Field, { text }: Operand): string {
  return mayBeTime(field) ? (timeText(text) ?? text) : text
}

/**
 * The text to compare with at an end of a range. A beginning stands for all times that begin so: `<=` and `]` include
 * them, `>` and `{` exclude them.
 */
export function boundText(field: Field, bound: Bound, end: 'low' | 'high'): string {
  const text = textFor(field, bound)
  const afterAll = bound.inclusive === (end === 'high') && mayBeTime(field) && isBeginning(bound.text)
  return afterAll ? text + AFTER : text
}

/**
 * Whether the field can be compared with the bound. Times compare as texts, so every time would be less than `now-1h`,
 * and all devices would match. `reported.x.at` may be a metric of that name and takes any bound.
 */
export function isBoundOf(field: Field, text: string): boolean {
  return !isTime(field) || timeText(text) !== undefined || isBeginning(text)
}

/** Whether the text equals all times that begin with it. */
export function isSpanOf(field: Field, text: string): boolean {
  return isBeginning(text) && (isTime(field) || (mayBeTime(field) && text.length >= MONTH))
}

function isBeginning(text: string): boolean {
  return BEGINNING.test(text) && !Number.isNaN(parseTime(text + SOME_TIME.slice(text.length)))
}

function mayBeTime(field: Field): boolean {
  return isTime(field) || (field.kind === 'reported' && field.timed !== undefined)
}

function isTime(field: Field): boolean {
  return field.kind === 'member' && TIME_MEMBERS.has(field.member)
}

/** Returns the text that stands among times with milliseconds where `text` stands. Undefined: `text` itself does. */
function timeText(text: string): string | undefined {
  const zoned = ZONED_TIME.exec(text)
  if (zoned !== null) {
    const ms = parseTime(text)
    return Number.isNaN(ms) ? undefined : isoText(ms) + finer(zoned[1])
  }
  const [, beginning, beyond] = FINE_BEGINNING.exec(text) ?? []
  if (beginning === undefined) return undefined
  return finer(beyond) === '' ? beginning : `${beginning}Z${AFTER}`
}

/** A zone may move the year out of four digits: `-000001-…` sorts before them as a text, too. */
function isoText(ms: number): string {
  const text = new Date(ms).toISOString()
  return text.startsWith('+') ? AFTER : text
}

function finer(beyondMs = ''): string {
  return /[1-9]/.test(beyondMs) ? AFTER : ''
}
