import { isDeeper, isObject, type Json, type JsonObject, MAX_DEPTH } from './json.ts'
import type { Status } from './status.ts'

/**
 * One field of a status, as queries, sorts and projections name it: `deviceId`, `rev`, `firstSeenAt`, `lastSeenAt`,
 * `connectivity.state`, `counters.messages`, …, `reported.<metric>` (its value), `reported.<metric>.at` (its time),
 * `attributes.<path>`. A group alone (`reported`) is a field too; its value is an object.
 */
export type Field = { readonly name: string } & (
  | { readonly kind: 'group'; readonly group: Group }
  | { readonly kind: 'member'; readonly group: Group | undefined; readonly member: string }
  | {
      readonly kind: 'reported'
      readonly metric: string
      /** The metric whose time the name can also mean: `x` of `x.at`. A metric called `x.at` comes first. */
      readonly timed: string | undefined
    }
  | { readonly kind: 'attribute'; readonly path: string }
)

type Group = 'reported' | 'connectivity' | 'counters' | 'attributes'

const TIME = '.at'

/** Members of a status, and of its groups of fixed shape. Their names need no escape in JSON. */
const MEMBERS: Readonly<Record<string, readonly string[]>> = {
  '': ['deviceId', 'rev', 'firstSeenAt', 'lastSeenAt'],
  connectivity: ['state', 'since', 'reason', 'session'],
  counters: ['messages', 'late', 'duplicates', 'skewed'],
}

/** Undefined when no status can have a field of that name. */
export function parseField(name: string): Field | undefined {
  if (MEMBERS['']?.includes(name)) return { name, kind: 'member', group: undefined, member: name }
  const dot = name.indexOf('.')
  const group = dot < 0 ? name : name.slice(0, dot)
  if (group !== 'reported' && group !== 'connectivity' && group !== 'counters' && group !== 'attributes')
    return undefined
  if (dot < 0) return { name, kind: 'group', group }
  const rest = name.slice(dot + 1)
  if (rest === '') return undefined
  if (group === 'attributes') return { name, kind: 'attribute', path: rest }
  if (group === 'reported') {
    const timed = rest.length > TIME.length && rest.endsWith(TIME) ? rest.slice(0, -TIME.length) : undefined
    return { name, kind: 'reported', metric: rest, timed }
  }
  return MEMBERS[group]?.includes(rest) ? { name, kind: 'member', group, member: rest } : undefined
}

/** Describes to people the names that `parseField` knows. */
export const FIELD_NAMES =
  'deviceId, rev, firstSeenAt, lastSeenAt, connectivity.(state|since|reason|session), ' +
  'counters.(messages|late|duplicates|skewed), reported.<metric>, reported.<metric>.at, attributes.<path>'

/** Nesting of the value of a field. A group has two levels around its values, and no status of ours has more. */
export const MAX_FIELD_DEPTH = MAX_DEPTH + 2

/**
 * Replaces a foreign value that is nested too deep by null, since JSON.stringify fails at some thousands. It must not
 * vanish: attributes that are no object make every search look at the device.
 */
export function bounded<T extends Json | undefined>(value: T): T | null {
  return value !== undefined && isDeeper(value, MAX_FIELD_DEPTH) ? null : value
}

/** Undefined when the status has no such field; null is a value. A foreign status may be any JSON. */
export function valueOf(field: Field, status: Status): Json | undefined {
  return bounded(held(field, status))
}

function held(field: Field, status: Status): Json | undefined {
  const json = status as unknown as Json
  if (!isObject(json)) return undefined
  if (field.kind === 'reported') {
    const { reported } = json
    if (!isObject(reported)) return undefined
    if (Object.hasOwn(reported, field.metric)) return memberOf(reported[field.metric], 'value')
    const { timed } = field
    return timed !== undefined && Object.hasOwn(reported, timed) ? memberOf(reported[timed], 'at') : undefined
  }
  if (field.kind === 'attribute') {
    const names = attributePath(json.attributes, field.path)
    return names?.reduce<Json | undefined>((holder, name) => (holder as JsonObject)[name], json.attributes)
  }
  if (field.kind === 'group') return json[field.group]
  return memberOf(field.group === undefined ? json : json[field.group], field.member)
}

function memberOf(holder: Json | undefined, name: string): Json | undefined {
  return isObject(holder) ? holder[name] : undefined
}

/**
 * Returns the names that lead to the value at a dotted path; undefined when there is none. Names may have dots
 * themselves: a member named like the whole rest of the path comes before one named like its part up to the first dot.
 */
export function attributePath(attributes: Json | undefined, path: string): readonly string[] | undefined {
  const names: string[] = []
  let holder: Json | undefined = attributes
  for (let rest = path; isObject(holder); ) {
    if (Object.hasOwn(holder, rest)) return [...names, rest]
    const dot = rest.indexOf('.')
    if (dot < 0) return undefined
    const name = rest.slice(0, dot)
    names.push(name)
    holder = Object.hasOwn(holder, name) ? holder[name] : undefined
    rest = rest.slice(dot + 1)
  }
  return undefined
}
