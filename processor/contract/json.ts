export type Json = null | boolean | number | string | Json[] | { [name: string]: Json }

export type JsonObject = { [name: string]: Json }

export function isObject(value: Json | undefined): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/**
 * Objects and arrays within each other, in what a device or a person sends, and so in each value of a status. All that
 * writes or reads statuses holds to this one: a value that one takes, and another refuses, has its device begin anew. JSON.stringify fails at some thousands.
 */
export const MAX_DEPTH = 16

/** Whether objects and arrays are nested deeper than `depth`. It goes no deeper itself. */
export function isDeeper(value: Json, depth: number): boolean {
  if (typeof value !== 'object' || value === null) return false
  if (depth === 0) return true
  return Object.values<Json>(value).some((inner) => isDeeper(inner, depth - 1))
}

/**
 * Whether a name anywhere in the JSON `text` has a backslash as a character. Such text must not be parsed: once V8 13.6
 * (Node 24) has met that name, JSON.parse takes other escaped names for it (`{"a":1,"\\n":1}` after `{"a":1,"\\\\":1}`),
 * so that one device's names would become another's. Linear in the text; of text that is no JSON it says something.
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

/** Of each value, beside the characters in it: what it takes to copy it, and to write it out. */
const VALUE_WORK = 128

/** What handling `value` takes, about, as bytes of JSON: many small values take more than a long text. */
export function workOf(value: Json): number {
  if (typeof value === 'string') return VALUE_WORK + value.length
  if (typeof value !== 'object' || value === null) return VALUE_WORK
  let work = VALUE_WORK
  if (Array.isArray(value)) for (const element of value) work += workOf(element)
  else for (const name in value) work += name.length + workOf(value[name] as Json)
  return work
}
