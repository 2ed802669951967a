export type Json = null | boolean | number | string | Json[] | { [name: string]: Json }

export type JsonObject = { [name: string]: Json }

export function isObject(value: Json | undefined): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/**
 * Nesting of objects and arrays in a payload, and so in each value of a status. All writers and readers of statuses share it:
 * if one took a value that another refuses, its device would begin anew. JSON.stringify fails at some thousands.
 */
export const MAX_DEPTH = 16

/** Whether objects and arrays are nested deeper than `depth`. Recurses no deeper itself. */
export function isDeeper(value: Json, depth: number): boolean {
  if (typeof value !== 'object' || value === null) return false
  if (depth === 0) return true
  return Object.values<Json>(value).some((inner) => isDeeper(inner, depth - 1))
}

/**
 * Whether a name anywhere in the JSON `text` has a backslash as a character. Such text must not be parsed: once V8 13.6
 * (Node 24) has met that name, JSON.parse takes other escaped names for it (`{"a":1,"\\n":1}` after `{"a":1,"\\\\":1}`),
 * so that one device's names would become another's. Linear in the text; for text that is no JSON the result means nothing.
 */
export function hasBackslashInName(text: string): boolean {
  if (!text.includes('\\')) return false
  for (let at = text.indexOf('"'); at >= 0; at = text.indexOf('"', at + 1)) {
    let backslash = false
    for (at++; at < text.length && text[at] !== '"'; at++) {
      if (text[at] !== '\\') continue
      at++
      if (text[at] === '\\' || (text[at] === 'u' && text.slice(at + 1, at + 5).toLowerCase() === '005c'))
        backslash = true
    }
    if (backslash && isName(text, at + 1)) return true
  }
  return false
}

/** Whether the string that ended before `at` is followed by a colon. */
function isName(text: string, at: number): boolean {
  let next = at
  while (text[next] === ' ' || text[next] === '\n' || text[next] === '\r' || text[next] === '\t') next++
  return text[next] === ':'
}

/** A copy to keep, in memory of its own: a view keeps the whole buffer, and `Buffer.from` copies into Node's 64 KiB pool. */
export function ownCopy(bytes: Uint8Array): Buffer {
  const copy = Buffer.allocUnsafeSlow(bytes.length)
  copy.set(bytes)
  return copy
}

/** A device id in memory of its own: one that was cut out of a topic keeps the whole topic, of up to 64 KiB. */
export function ownDeviceId(deviceId: string): string {
  return Buffer.from(deviceId, 'latin1').toString('latin1')
}

/** The same bytes as a Buffer: `Buffer.from(bytes)` would copy them. */
export function viewOf(bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

/** Whether the bytes begin with `text`, which is ASCII. */
export function beginsWith(bytes: Uint8Array, text: string): boolean {
  if (bytes.length < text.length) return false
  for (let i = 0; i < text.length; i++) if (bytes[i] !== text.charCodeAt(i)) return false
  return true
}

/** The first `most` characters, or one fewer, so that no surrogate pair is split. */
export function beginningOf(text: string, most: number): string {
  if (text.length <= most) return text
  return text.slice(0, (text.charCodeAt(most - 1) & 0xfc00) === 0xd800 ? most - 1 : most)
}
