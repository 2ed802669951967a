/**
 * The entity tag of a status: its rev, and when the device was first seen, since a device that was deleted and came back
 * counts its revs anew. It is weak (RFC 9110 section 8.8.1): answers of one rev differ in how fresh they are, and in
 * `counters.duplicates`. `text`: the JSON of a status, as `statusText` writes it; its end may be missing.
 */
export function etagOf(text: string): string {
  const rev = text.indexOf(REV) + REV.length
  // What devices and people say comes before and after; of this form is only what the processor wrote.
  const seen = text.lastIndexOf(FIRST_SEEN) + FIRST_SEEN.length
  return `W/"${text.slice(rev, text.indexOf(',', rev))}-${text.slice(seen, text.indexOf('"', seen))}"`
}

const REV = '","rev":'
const FIRST_SEEN = '},"firstSeenAt":"'

/** RFC 9110 section 8.8.3. */
const ENTITY_TAG = /(?:W\/)?"([\x21\x23-\x7e\x80-\xff]*)"/g

/** Whether `If-None-Match` names the tag, by weak comparison (RFC 9110 section 13.1.2): then 304 is due. */
export function isNoneMatch(header: string, etag: string): boolean {
  if (header === etag || header.trim() === '*') return true
  const opaque = etag.slice(3, -1)
  for (const [, given] of header.matchAll(ENTITY_TAG)) if (given === opaque) return true
  return false
}
