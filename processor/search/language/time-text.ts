import type { Field } from '../../contract/field.ts'
import type { Bound, Operand } from '../../contract/search.ts'
import { parseTime } from '../../contract/time.ts'

const TIME_MEMBERS = new Set(['firstSeenAt', 'lastSeenAt', 'since'])
/** With what it has of a second beyond milliseconds. */
const ZONED_TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d(?::\d\d(?:\.\d{1,3}(\d{0,6}))?)?(?:Z|[+-]\d\d:\d\d)$/
/** Up to its milliseconds the beginning of a time, with what it has beyond them. */
const FINE_BEGINNING = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3})(\d{1,6})$/
/** The beginning of a time, up to the end of one of its parts: `2026-11-3` might be meant for the third as well as the thirtieth. */
const BEGINNING = /^\d{4}(?:-\d\d(?:-\d\d(?:T\d\d(?::\d\d(?::\d\d(?:\.\d{1,9})?)?)?)?)?)?$/
/** To complete a beginning with. */
const SOME_TIME = '2000-01-01T00:00:00.000000000Z'
/** As much of a time as a metric called `x.at` is not likely to have as its text: a year may be a number, or begin a name. */
const MONTH = 'YYYY-MM'.length
/** After all that a time can have in its place. */
const AFTER = '~'

/** A time that has a zone is compared as the moment it is, with a field that is a time: there all have one form. */
export function textFor(field: Field, { text }: Operand): string {
  return mayBeTime(field) ? (timeText(text) ?? text) : text
}

/**
 * The text beside which `end` of a range is. The beginning of a time stands for all times that begin so: with `<=` and `]`
 * they are within the range, after `>` and `{` they are not.
 */
export function boundText(field: Field, bound: Bound, end: 'low' | 'high'): string {
  const text = textFor(field, bound)
  const afterAll = bound.inclusive === (end === 'high') && mayBeTime(field) && isBeginning(bound.text)
  return afterAll ? text + AFTER : text
}

/**
 * Whether the field has an order beside the bound. Times are compared as texts, so beside `now-1h` each is less, and all
 * devices would be found. `reported.x.at` may be a metric of that name: it takes any bound.
 */
export function isBoundOf(field: Field, text: string): boolean {
  return !isTime(field) || timeText(text) !== undefined || isBeginning(text)
}

/** Whether what is equal to the text are all the times that begin so. */
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

/** What stands among the texts of times, which have milliseconds, as `text` does among the times; undefined: nothing else. */
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

/** By its zone it may be in another year than those of four digits: `-000001-…` is before them as a text, too. */
function isoText(ms: number): string {
  const text = new Date(ms).toISOString()
  return text.startsWith('+') ? AFTER : text
}

function finer(beyondMs = ''): string {
  return /[1-9]/.test(beyondMs) ? AFTER : ''
}
