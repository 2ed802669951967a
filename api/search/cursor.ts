import { createHash } from 'node:crypto'
import { type Order, printOrder, sortKeyOf } from '../../processor/contract/order.ts'
import { type Place, printQuery, type Query } from '../../processor/contract/search.ts'
import { isDeviceId } from '../../processor/contract/telemetry.ts'

/** A cursor is base64url of `<version>:<checksum>:<JSON of the place the page ended at>`; clients must not look inside. */
const VERSION = '2'
const CHECKSUM = 16

/** The longest cursor, in characters: a sort key of 128 characters, each escaped, and a device id. */
export const MAX_CURSOR = 1400

/**
 * The checksum binds the cursor to its query and order, and tells a garbled one from a true one. It is no signature: a
 * forged one would reveal nothing that the list itself does not.
 */
export function encodeCursor({ key, deviceId }: Place, query: Query, order: Order): string {
  const place = JSON.stringify([key, deviceId])
  return Buffer.from(`${VERSION}:${checksum(place, query, order)}:${place}`).toString('base64url')
}

/** Undefined when this is no cursor that a page of this query in this order gave. */
export function decodeCursor(cursor: string, query: Query, order: Order): Place | undefined {
  const json = Buffer.from(cursor, 'base64url')
    .toString()
    .slice(VERSION.length + CHECKSUM + 2)
  const parsed = parse(json)
  if (!Array.isArray(parsed)) return undefined
  const [keyJson, deviceId] = parsed as unknown[]
  const key = sortKeyOf(keyJson)
  if (key === undefined || typeof deviceId !== 'string' || !isDeviceId(deviceId)) return undefined
  const place = { key, deviceId }
  return encodeCursor(place, query, order) === cursor ? place : undefined
}

function parse(json: string): unknown {
  try {
    return JSON.parse(json)
  } catch {
    // What is no JSON is no cursor.
    return undefined
  }
}

function checksum(place: string, query: Query, order: Order): string {
  const bound = JSON.stringify([place, printQuery(query), printOrder(order)])
  return createHash('sha256').update(bound).digest('hex').slice(0, CHECKSUM)
}
