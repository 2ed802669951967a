import type { FastifyReply } from 'fastify'
import { FIELD_NAMES, type Field, parseField } from '../../processor/contract/field.ts'
import type { Json } from '../../processor/contract/json.ts'
import { type Order, parseOrder } from '../../processor/contract/order.ts'
import { type StatusReader, sliceOf } from '../../processor/contract/query.ts'
import { MAX_SUMMARY_FIELDS, type Place, type Query } from '../../processor/contract/search.ts'
import { type Distribution, MAX_GROUPS, MAX_GROUPS_OF_DEVICE, type Summary } from '../../processor/contract/summary.ts'
import type { Limiter } from '../../processor/runtime/limiter.ts'
import { TextTurns } from '../../processor/runtime/turns.ts'
import type { Api } from '../app.ts'
import { callerOf, READS_DEVICES } from '../auth/caller.ts'
import { namesOf, type Projection, projectionOf } from '../devices/projection.ts'
import { freshnessMember, JSON_TYPE, nextPage, shownFreshness } from '../http/answer-text.ts'
import type { UnsentAnswers } from '../http/connections.ts'
import { ProblemError } from '../http/problem.ts'
import type { Limits } from '../limits.ts'
import {
  decodeCursor,
  encodeCursor,
  type FoundDevice,
  type FoundPage,
  searchFleet,
  summarizeFleet,
} from './fleet-search.ts'
import { COUNT_DEVICES, DEFAULT_LIMIT, LIST_DEVICES, queryOf, SUMMARIZE_FLEET } from './schemas.ts'

export interface SearchRoutes {
  readonly reader: StatusReader
  readonly searches: Limiter
  readonly unsent: UnsentAnswers
  readonly limits: Limits
  /** ms. */
  readonly now: () => number
}

const DEVICE_ID = parseOrder('deviceId') as Order

export function searchRoutes(api: Api, { reader, searches, unsent, limits, now }: SearchRoutes): void {
  /** Returns whether the time is over or the client has gone. */
  const overAfter = (reply: FastifyReply): (() => boolean) => {
    const until = now() + limits.searchMs
    return () => now() >= until || reply.raw.destroyed
  }

  api.get('/v1/devices', { schema: LIST_DEVICES, config: READS_DEVICES }, async (request, reply) => {
    const { q, sort, fields, limit = DEFAULT_LIMIT, cursor } = request.query
    const projection = projectionOf(fields)
    const query = queryOf(q)
    const order = orderOf(sort)
    const after = placeOf(cursor, query, order)
    const within = callerOf(request).prefixes
    const isOver = overAfter(reply)
    unsent.admit()
    const page = await searches.run(() => searchFleet(reader, { query, within, order, after, limit, isOver }))
    const { items, next, complete } = bounded(page, limits.maxAnswerBytes)
    const nextCursor = next === undefined ? undefined : encodeCursor(next, query, order)
    if (nextCursor !== undefined) reply.header('link', nextPage(request, nextCursor))
    reply.header('content-type', JSON_TYPE)
    const members = [`"items":[${(await deviceTexts(items, projection)).join(',')}]`]
    if (nextCursor !== undefined) members.push(`"nextCursor":"${nextCursor}"`)
    if (!complete) members.push(`"complete":false,"reason":${JSON.stringify(cutShort(limits))}`)
    const text = `{${members.join(',')}}`
    unsent.hold(text.length, reply.raw)
    return text
  })

  api.get('/v1/devices/count', { schema: COUNT_DEVICES, config: READS_DEVICES }, async (request, reply) => {
    const query = queryOf(request.query.q)
    const options = { query, within: callerOf(request).prefixes, by: [], metrics: [], isOver: overAfter(reply) }
    const { summary, complete, freshness } = await searches.run(() => summarizeFleet(reader, options))
    const reason = complete ? {} : { reason: cutShort(limits) }
    return { count: summary.devices, complete, ...reason, freshness: freshness.map(shownFreshness) }
  })

  api.get('/v1/fleet/summary', { schema: SUMMARIZE_FLEET, config: READS_DEVICES }, async (request, reply) => {
    const query = queryOf(request.query.q)
    const by = fieldsOf('by', request.query.by)
    const metrics = fieldsOf('metric', request.query.metric)
    const options = { query, within: callerOf(request).prefixes, by, metrics, isOver: overAfter(reply) }
    const { summary, complete, freshness } = await searches.run(() => summarizeFleet(reader, options))
    const { devices, notShown } = summary
    const shown = complete ? devicesNotShown(notShown) : cutShort(limits)
    return {
      devices,
      groups: groupsOf(summary, by, metrics),
      notShown,
      complete: shown === undefined,
      ...(shown === undefined ? {} : { reason: shown }),
      freshness: freshness.map(shownFreshness),
    }
  })
}

/** Makes the texts of an answer, and lets others have the event loop in between. */
async function deviceTexts(items: readonly FoundDevice[], projection: Projection): Promise<string[]> {
  const texts: string[] = []
  const turns = new TextTurns()
  for (const { status, freshness } of items) {
    texts.push(`${projection(sliceOf(status))},${freshnessMember(freshness)}}`)
    const turn = turns.spend(status.byteLength)
    if (turn !== undefined) await turn
  }
  return texts
}

/** Always gives one device at least, so that paging makes progress. */
function bounded({ items, next, complete }: FoundPage, maxBytes: number): FoundPage {
  let bytes = 0
  for (const [i, { status }] of items.entries()) {
    bytes += status.byteLength
    if (i > 0 && bytes > maxBytes) return { items: items.slice(0, i), next: items[i - 1], complete: true }
  }
  return { items, next, complete }
}

function orderOf(text: string | undefined): Order {
  if (text === undefined) return DEVICE_ID
  const order = parseOrder(text)
  if (order === undefined) {
    throw ProblemError.invalid([
      { field: 'sort', message: `must be a field, with - before it for descending: ${FIELD_NAMES}` },
    ])
  }
  return order
}

function placeOf(cursor: string | undefined, query: Query, order: Order): Place | undefined {
  if (cursor === undefined) return undefined
  const place = decodeCursor(cursor, query, order)
  if (place === undefined) {
    throw ProblemError.invalid([{ field: 'cursor', message: 'is not a cursor that this API gave for this q and sort' }])
  }
  return place
}

function fieldsOf(parameter: string, text: string | undefined): Field[] {
  if (text === undefined) return []
  const names = namesOf(text)
  if (names.length > MAX_SUMMARY_FIELDS || new Set(names).size < names.length) {
    const message = `must be up to ${MAX_SUMMARY_FIELDS} fields, each once, with commas between them, and \\, for one in a name`
    throw ProblemError.invalid([{ field: parameter, message }])
  }
  return names.map((name) => {
    const field = parseField(name)
    if (field === undefined || field.kind === 'group') {
      const message = `${JSON.stringify(name)} is no field with a value; there are ${FIELD_NAMES}`
      throw ProblemError.invalid([{ field: parameter, message }])
    }
    return field
  })
}

interface GroupBody {
  readonly by: Readonly<Record<string, Json>>
  readonly count: number
  readonly metrics?: Readonly<Record<string, Distribution | null>>
}

function groupsOf(summary: Summary, by: readonly Field[], metrics: readonly Field[]): GroupBody[] {
  return summary.groups().map((group) => {
    const named: Record<string, Json> = {}
    for (const [i, { name }] of by.entries()) {
      const value = group.by[i]
      if (value !== undefined) named[name] = value
    }
    const head = { by: named, count: group.count }
    if (metrics.length === 0) return head
    const told = metrics.map(({ name }, i) => [name, group.metrics[i] ?? null] as const)
    return { ...head, metrics: Object.fromEntries(told) }
  })
}

function cutShort({ searchMs }: Limits): string {
  return `not all devices were examined within ${searchMs} ms`
}

function devicesNotShown(devices: number): string | undefined {
  if (devices === 0) return undefined
  return `there are more groups than an answer shows: ${MAX_GROUPS}, and ${MAX_GROUPS_OF_DEVICE} of one device`
}
