import { isObject, type Json, type JsonObject, MAX_DEPTH } from './json.ts'

/**
 * Attributes are what people say of a device (type, site, tags), while `reported` is what the device says. They are one
 * JSON object within the bounds of a telemetry payload.
 */

/** Bytes of the JSON of all attributes of a device, and of what one request sets or merges. */
export const MAX_ATTRIBUTES_BYTES = 8 * 1024
/** Nesting of objects and arrays, the attributes themselves included, as in a telemetry payload. */
export const MAX_ATTRIBUTES_DEPTH = MAX_DEPTH

export type AttributesFault = 'too-deep' | 'bad-number' | 'bad-attribute-name'

/** Finds what cannot be kept, and where (`tags[2].name`). Undefined: everything can. */
export function attributesFault(
  attributes: JsonObject,
): { readonly fault: AttributesFault; readonly at: string } | undefined {
  return faultWithin(attributes, '', 1)
}

function faultWithin(
  value: Json,
  at: string,
  depth: number,
): { readonly fault: AttributesFault; readonly at: string } | undefined {
  // JSON.parse reads 1e999 as Infinity, which JSON cannot write again.
  if (typeof value === 'number') return Number.isFinite(value) ? undefined : { fault: 'bad-number', at }
  if (typeof value !== 'object' || value === null) return undefined
  if (depth > MAX_ATTRIBUTES_DEPTH) return { fault: 'too-deep', at }
  if (Array.isArray(value)) {
    for (let i = 0; i < value.length; i++) {
      const found = faultWithin(value[i] as Json, `${at}[${i}]`, depth + 1)
      if (found !== undefined) return found
    }
    return undefined
  }
  for (const name of Object.keys(value)) {
    const path = at === '' ? name : `${at}.${name}`
    if (name === '' || name === '__proto__' || isEscaped(name)) return { fault: 'bad-attribute-name', at: path }
    const found = faultWithin(value[name] as Json, path, depth + 1)
    if (found !== undefined) return found
  }
  return undefined
}

/**
 * Whether JSON writes the name with a backslash: JSON.parse of V8 13.6 takes such names for others, once it has met one
 * that ends with a backslash. Beside these, `__proto__` is refused, as it would replace the prototype of the merged object.
 */
function isEscaped(name: string): boolean {
  return JSON.stringify(name).length !== name.length + 2
}

/** JSON Merge Patch (RFC 7396 section 2) of valid attributes. Changes neither `target` nor `patch`. */
export function mergePatch(target: JsonObject, patch: JsonObject): JsonObject {
  const merged = { ...target }
  for (const name in patch) {
    const value = patch[name] as Json
    if (value === null) {
      delete merged[name]
    } else if (isObject(value)) {
      const old = Object.hasOwn(merged, name) ? merged[name] : undefined
      merged[name] = mergePatch(isObject(old) ? old : {}, value)
    } else {
      merged[name] = value
    }
  }
  return merged
}
