import { murmur2 } from '../processor/contract/partition.ts'
import { isDeviceId } from '../processor/contract/telemetry.ts'

/** A cursor is base64url of `<version>:<checksum>:<last device id of the page>`; clients must not look inside. */
const VERSION = '1'

/** The longest cursor, in characters: 140 bytes in base64url. */
export const MAX_CURSOR = 192

/** The checksum tells a garbled cursor from a true one; it is no signature, as a forged one would reveal nothing. */
export function encodeCursor(after: string): string {
  return Buffer.from(`${VERSION}:${checksum(after)}:${after}`).toString('base64url')
}

/** The device id after which the page begins; undefined when this is no cursor of ours. */
export function decodeCursor(cursor: string): string | undefined {
  const text = Buffer.from(cursor, 'base64url').toString('latin1')
  const after = text.slice(`${VERSION}:00000000:`.length)
  return isDeviceId(after) && encodeCursor(after) === cursor ? after : undefined
}

function checksum(text: string): string {
  return (murmur2(`cursor:${text}`) >>> 0).toString(16).padStart(8, '0')
}
