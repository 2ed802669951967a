/**
 * The entity tag of a status: its rev, and when the device was first seen, since a device that was deleted and came back
 * counts its revs anew. It is weak (RFC 9110 section 8.8.1): answers of one rev differ in how fresh they are, and in
 * `counters.duplicates`. A write may ask for it by `If-Match`. `text`: the JSON of a status, as `statusText` writes it; its end may be missing.
 */
export function etagOf(text: string): string {
  const rev = text.indexOf(REV) + REV.length
  return `W/"${text.slice(rev, text.indexOf(',', rev))}-${firstSeen(text)}"`
}

/** What people say comes after it, and may hold a member of that name, but seldom with a time. */
function firstSeen(text: string): string {
  for (let at = text.lastIndexOf(FIRST_SEEN); ; at = text.lastIndexOf(FIRST_SEEN, at - 1)) {
    if (at < 0) throw new Error('a stored status does not say when its device was first seen')
    const time = text.slice(at + FIRST_SEEN.length, at + FIRST_SEEN.length + TIME_LENGTH)
    if (TIME.test(time)) return time
  }
}

const REV = '","rev":'
const FIRST_SEEN = '},"firstSeenAt":"'
const TIME_LENGTH = '2026-11-24T10:00:00.000Z'.length
const TIME = /^[\d:.TZ-]+$/

/** RFC 9110 section 8.8.3. */
const ENTITY_TAG = /(?:W\/)?"([\x21\x23-\x7e\x80-\xff]*)"/g

/** Whether `If-None-Match` names the tag, by weak comparison (RFC 9110 section 13.1.2): then 304 is due. */
export function isNoneMatch(header: string, etag: string): boolean {
  if (header === etag || header.trim() === '*') return true
  const opaque = etag.slice(3, -1)
  for (const [, given] of header.matchAll(ENTITY_TAG)) if (given === opaque) return true
  return false
}
