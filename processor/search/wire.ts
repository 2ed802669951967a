import { type Field, parseField } from '../contract/field.ts'
import { parseOrder, printOrder, type SortKey, sortKeyOf } from '../contract/order.ts'
import {
  type Cursor,
  checkId,
  checkPartition,
  MAX_LISTED,
  parse,
  splitHead,
  WireFormatError,
  withHead,
} from '../contract/query-wire.ts'
import {
  MAX_SUMMARY_FIELDS,
  QuerySyntaxError,
  type SearchQuestion,
  type SearchSlice,
  type Selection,
  type SummaryQuestion,
  type SummarySlice,
} from '../contract/search.ts'
import { parseQuery } from './language/parser.ts'

/** Encodes questions about many devices as `query-wire.ts` does. Queries travel as their source text. */
export const SEARCH_PATH = '/query/v1/search'
export const SUMMARY_PATH = '/query/v1/summary'

/** A page and one more device, which tells whether another page follows. */
const MAX_SEARCHED = MAX_LISTED + 1
/** Longest place to go on at, and most prefixes, of a question. */
const MAX_FROM = 1_024
const MAX_PREFIXES = 256

export function encodeSearchQuestion({ query, order, after, ...rest }: SearchQuestion): string {
  // The caller's place may carry a whole status, which would not fit into a question.
  const place = after && { key: after.key, deviceId: after.deviceId }
  return JSON.stringify({ ...rest, after: place, query: query.text, order: printOrder(order) })
}

/** Throws WireFormatError. */
export function decodeSearchQuestion(body: string): SearchQuestion {
  const json = (parse(body) ?? {}) as Record<string, unknown>
  const order = typeof json.order === 'string' ? parseOrder(json.order) : undefined
  if (order === undefined) throw new WireFormatError('an order is expected')
  const { limit } = json
  if (!Number.isInteger(limit) || (limit as number) < 1 || (limit as number) > MAX_SEARCHED) {
    throw new WireFormatError(`a limit from 1 to ${MAX_SEARCHED} is expected`)
  }
  return { ...decodeSelection(json), order, after: decodePlace(json.after), limit: limit as number }
}

function decodePlace(json: unknown): { key: SortKey; deviceId: string } | undefined {
  if (json === undefined) return undefined
  const { key, deviceId } = (json ?? {}) as { key?: unknown; deviceId?: unknown }
  const known = sortKeyOf(key)
  checkId(deviceId)
  if (known === undefined) throw new WireFormatError('a place in the order is expected')
  return { key: known, deviceId: deviceId as string }
}

type Continued = Selection & Pick<SummaryQuestion, 'partition' | 'from' | 'reached'>

function decodeSelection(json: Record<string, unknown>): Continued {
  const { partition, query, within, from, reached } = json
  checkPartition(partition)
  if (typeof query !== 'string') throw new WireFormatError('a query is expected')
  if (from !== undefined && (typeof from !== 'string' || from.length > MAX_FROM)) {
    throw new WireFormatError('a place to go on at is expected')
  }
  if (reached !== undefined && !Number.isSafeInteger(reached)) {
    throw new WireFormatError('a position in the changelog is expected')
  }
  if (within !== undefined) {
    if (!Array.isArray(within) || within.length > MAX_PREFIXES) throw new WireFormatError('prefixes are expected')
    for (const prefix of within) checkId(prefix)
  }
  try {
    return {
      partition: partition as number,
      query: parseQuery(query),
      within: within as string[] | undefined,
      from,
      reached: reached as number | undefined,
    }
  } catch (error) {
    if (error instanceof QuerySyntaxError) throw new WireFormatError(`the query ${error.message}`)
    throw error
  }
}

interface WireSlice extends Omit<SearchSlice, 'items'> {
  readonly ids: readonly string[]
  readonly lengths: readonly number[]
}

export function encodeSearchSlice({ items, ...rest }: SearchSlice): Buffer[] {
  const ids = items.map(({ deviceId }) => deviceId)
  const lengths = items.map(({ status }) => status.byteLength)
  const head: WireSlice = { ...rest, ids, lengths }
  return withHead(
    head,
    items.map(({ status }) => status),
  )
}

/** Throws WireFormatError. */
export function decodeSearchSlice(body: Buffer): SearchSlice {
  const { head, statuses } = splitHead(body) as { head: WireSlice; statuses: Cursor }
  const { ids, lengths, settled, more, next, freshness } = head
  const items = ids.map((deviceId, i) => ({ deviceId, status: statuses.take(lengths[i] as number) }))
  return { items, settled, more, next, freshness }
}

export function encodeSummaryQuestion({ query, by, metrics, ...rest }: SummaryQuestion): string {
  return JSON.stringify({ ...rest, query: query.text, by: by.map(nameOf), metrics: metrics.map(nameOf) })
}

function nameOf({ name }: Field): string {
  return name
}

/** Throws WireFormatError. */
export function decodeSummaryQuestion(body: string): SummaryQuestion {
  const json = (parse(body) ?? {}) as Record<string, unknown>
  return { ...decodeSelection(json), by: decodeFields(json.by), metrics: decodeFields(json.metrics) }
}

function decodeFields(names: unknown): Field[] {
  if (!Array.isArray(names) || names.length > MAX_SUMMARY_FIELDS) throw new WireFormatError('fields are expected')
  return names.map((name: unknown) => {
    const field = typeof name === 'string' ? parseField(name) : undefined
    if (field === undefined) throw new WireFormatError('fields are expected')
    return field
  })
}

export function encodeSummarySlice(slice: SummarySlice): Buffer[] {
  return [Buffer.from(JSON.stringify(slice))]
}

/** Throws WireFormatError. */
export function decodeSummarySlice(body: Buffer): SummarySlice {
  const { summary, next, freshness } = (parse(body.toString()) ?? {}) as Partial<SummarySlice>
  if (summary === undefined || freshness === undefined) throw new WireFormatError('a summary is expected')
  return { summary, next, freshness }
}
