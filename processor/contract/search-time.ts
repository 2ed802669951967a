import type { Field } from './field.ts'
import type { Operand } from './search-query.ts'
import { isoTime, MAX_TIME_MS, parseTime } from './time.ts'

const TIME_MEMBERS = new Set(['firstSeenAt', 'lastSeenAt', 'since'])
const ZONED_TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?(?:Z|[+-]\d\d:\d\d)$/
/** What a status has, and one such to complete a beginning with. */
const ISO_TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/
const SOME_ISO_TIME = '2000-01-01T00:00:00.000Z'

/** A time that has a zone is compared as the moment it is, with a field that is a time: there all have one form. */
export function textFor(field: Field, { text }: Operand): string {
  return isTime(field) || (field.kind === 'reported' && field.timed !== undefined) ? (zonedTime(text) ?? text) : text
}

/**
 * Whether the field has an order beside the bound. Times are compared as texts, so beside `now-1h` each is less, and all
 * devices would be found. `reported.x.at` may be a metric of that name: it takes any bound.
 */
export function isBoundOf(field: Field, text: string): boolean {
  return !isTime(field) || zonedTime(text) !== undefined || ISO_TIME.test(text + SOME_ISO_TIME.slice(text.length))
}

function isTime(field: Field): boolean {
  return field.kind === 'member' && TIME_MEMBERS.has(field.member)
}

function zonedTime(text: string): string | undefined {
  if (!ZONED_TIME.test(text)) return undefined
  const ms = parseTime(text)
  return ms >= 0 && ms <= MAX_TIME_MS ? isoTime(ms) : undefined
}
