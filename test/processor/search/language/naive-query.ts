import type { Json, JsonObject } from '../../../../processor/contract/json.ts'
import type { Operand, QueryNode } from '../../../../processor/contract/search.ts'
import type { Status } from '../../../../processor/contract/status.ts'

/** The meaning of a query as the documentation gives it, with no thought of speed. */
export function naiveMatches(node: QueryNode, status: Status): boolean {
  if (node.kind === 'all') return true
  if (node.kind === 'not') return !naiveMatches(node.node, status)
  if ('nodes' in node) {
    const held = node.nodes.filter((part) => naiveMatches(part, status)).length
    return node.kind === 'and' ? held === node.nodes.length : held > 0
  }
  const value = naiveValue(node.field.name, status)
  if (node.kind === 'exists') return value !== undefined
  if (value === undefined) return false
  return (Array.isArray(value) ? value : [value]).some((element) => {
    if (node.kind === 'equals') return sides(element, node.value, node.field.name)?.difference === 0
    if (node.kind === 'like') return typeof element === 'string' && expression(node.pattern).test(element)
    if (typeof element !== 'string' && typeof element !== 'number') return false
    for (const [bound, sign] of [
      [node.low, 1],
      [node.high, -1],
    ] as const) {
      if (bound === undefined) continue
      const found = sides(element, bound, node.field.name)
      if (found === undefined) return false
      const beyond = isTime(node.field.name) && begins(element, bound) ? 0 : found.difference * sign
      if (!(bound.inclusive ? beyond >= 0 : beyond > 0)) return false
    }
    return true
  })
}

/** Fields are looked up by trying every split of the name. */
function naiveValue(name: string, status: Status): Json | undefined {
  if (name.startsWith('reported.')) {
    const metric = Object.entries(status.reported).find(([key]) => key === name.slice(9))
    if (metric !== undefined) return metric[1].value
    return Object.entries(status.reported).find(([key]) => `reported.${key}.at` === name)?.[1].at
  }
  return lookUp(status as unknown as JsonObject, name)
}

function lookUp(holder: Json | undefined, name: string): Json | undefined {
  if (typeof holder !== 'object' || holder === null || Array.isArray(holder)) return undefined
  const entries = Object.entries(holder)
  const whole = entries.find(([key]) => key === name)
  if (whole !== undefined) return whole[1]
  const [first = '', ...rest] = name.split('.')
  return rest.length === 0 ? undefined : lookUp(entries.find(([key]) => key === first)?.[1], rest.join('.'))
}

function sides(value: Json, { text, quoted }: Operand, field: string): { difference: number } | undefined {
  if (typeof value === 'string') {
    const wanted = isTime(field) ? nanosOf(text) : undefined
    if (wanted === undefined) return { difference: Buffer.compare(Buffer.from(value), Buffer.from(text)) }
    const found = nanosOf(value)
    if (found === undefined) {
      // What is no time stands among times by their texts; those of years with five digits are after all that have four.
      const time = new Date(Number(wanted / 1_000_000n)).toISOString().replace(/^\+/, '~')
      return { difference: Buffer.compare(Buffer.from(value), Buffer.from(time)) }
    }
    // Without a zone it is the beginning of the times that go on as it ends, and so before them.
    if (found === wanted) return { difference: /Z$|[+-]\d\d:\d\d$/.test(text) ? 0 : 1 }
    return { difference: found < wanted ? -1 : 1 }
  }
  if (quoted) return undefined
  if (typeof value === 'number') {
    const number = /^-?\d/.test(text) && !/^-?0\d/.test(text) ? Number(text) : Number.NaN
    return Number.isFinite(number) && !text.endsWith('.') ? { difference: value - number } : undefined
  }
  return JSON.stringify(value) === text ? { difference: 0 } : undefined
}

function isTime(field: string): boolean {
  return field === 'lastSeenAt' || field.endsWith('.at')
}

/** Whether the bound is the beginning of a time, up to a whole part, and the value one of the times that begin so. */
function begins(value: Json, { text }: Operand): boolean {
  const upToMs = text.replace(/(\.\d{3})0+$/, '$1')
  const shape = upToMs.replace(/\d/g, '0')
  const isBeginning = ['0000', '0000-00', '0000-00-00', '0000-00-00T00', '0000-00-00T00:00'].includes(shape)
  const hasSeconds = /^0000-00-00T00:00:00(\.0{1,3})?$/.test(shape)
  return (isBeginning || hasSeconds) && typeof value === 'string' && value.startsWith(upToMs)
}

/** Of a time with a zone, and of one that is finer than milliseconds; undefined: it is something else. */
function nanosOf(text: string): bigint | undefined {
  const [, upToSeconds, fraction = '', zone = ''] = /^(\d{4}-.*T[\d:]*)(?:\.(\d+))?(Z|[+-].*)?$/.exec(text) ?? []
  if (upToSeconds === undefined || (zone === '' && fraction.length <= 3)) return undefined
  return BigInt(Date.parse(upToSeconds + (zone || 'Z'))) * 1_000_000n + BigInt(fraction.padEnd(9, '0'))
}

function expression(pattern: string): RegExp {
  const source = pattern.replace(/\\(.)|([*?])|(.)/gsu, (_, escaped: string, wildcard: string, plain: string) => {
    if (wildcard !== undefined) return wildcard === '*' ? '.*' : '.'
    return (escaped ?? plain).replace(/[\\^$.*+?()[\]{}|/]/g, '\\$&')
  })
  return new RegExp(`^${source}$`, 'su')
}
