import { type Order, printOrder, sortKeyOf } from '../../processor/contract/order.ts'
import { type Place, printQuery, type Query } from '../../processor/contract/search.ts'
import { isDeviceId } from '../../processor/contract/telemetry.ts'
import { type Seal, seal, sha256Checksum, unseal } from '../http/cursor.ts'

/** A cursor is base64url of `<version>:<checksum>:<JSON of the place where the page ended>`. */
const VERSION = '2:'

/** Characters of the longest cursor: a sort key of 128 characters, each escaped, and a device id. */
export const MAX_CURSOR = 1400

export function encodeCursor({ key, deviceId }: Place, query: Query, order: Order): string {
  const place = JSON.stringify([key, deviceId])
  return Buffer.from(`${VERSION}${seal(place, sealOf(query, order))}`).toString('base64url')
}

/** Undefined when no page of this query in this order gave the cursor. */
export function decodeCursor(cursor: string, query: Query, order: Order): Place | undefined {
  const text = Buffer.from(cursor, 'base64url').toString()
  const json = unseal(text.slice(VERSION.length), sealOf(query, order))
  if (json === undefined) return undefined
  const [keyJson, deviceId] = JSON.parse(json) as [unknown, unknown]
  const key = sortKeyOf(keyJson)
  if (key === undefined || typeof deviceId !== 'string' || !isDeviceId(deviceId)) return undefined
  const place = { key, deviceId }
  // Base64 has several texts for the same bytes.
  return encodeCursor(place, query, order) === cursor ? place : undefined
}

function sealOf(query: Query, order: Order): Seal {
  const bound = [printQuery(query), printOrder(order)]
  return { separator: ':', checksum: (place) => sha256Checksum(JSON.stringify([place, ...bound])) }
}
