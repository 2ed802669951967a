import { attributePath, bounded, FIELD_NAMES, type Field, parseField } from '../../processor/contract/field.ts'
import { isObject, type Json, type JsonObject } from '../../processor/contract/json.ts'
import { bufferOf, type Slice } from '../../processor/contract/query.ts'
import { decodeStatus, type Status } from '../../processor/contract/status.ts'
import { openStatus } from '../http/answer-text.ts'
import { ProblemError } from '../http/problem.ts'

/** Most fields of one answer. More get 400. */
const MAX_FIELDS = 64

/** Makes the JSON text of a stored status, whole or with the wanted fields, without its last `}`. */
export type Projection = (status: Slice) => string

/** Reads the parameter `fields`, see `statusProjectionOf`. Without it the status is not parsed. Throws ProblemError. */
export function projectionOf(fields: string | undefined): Projection {
  if (fields === undefined) return openStatus
  const project = statusProjectionOf(fields)
  return (stored) => project(decodeStatus(bufferOf(stored))).slice(0, -1)
}

/** Makes the JSON text of the wanted fields of a status. */
export type StatusProjection = (status: Status) => string

/**
 * Reads the parameter `fields`: names separated by commas, `\,` for a comma in a name. The text has the fields where a
 * status has them, and always the device id; missing fields are left out. Throws ProblemError that names an unknown
 * field.
 */
export function statusProjectionOf(fields: string): StatusProjection {
  const names = namesOf(fields)
  if (names.length > MAX_FIELDS) throw invalid(`may name up to ${MAX_FIELDS} fields`)
  const parsed = names.map(fieldOf)
  return (status) => {
    const shown = emptyObject()
    shown.deviceId = status.deviceId
    for (const field of parsed) show(field, status, shown)
    return JSON.stringify(shown)
  }
}

/** Splits at commas; `\,` is a comma in a name. */
export function namesOf(fields: string): string[] {
  return fields.split(/(?<!\\),/).map((name) => name.replaceAll('\\,', ','))
}

function fieldOf(name: string): Field {
  const field = parseField(name)
  if (field === undefined)
    throw invalid(`${JSON.stringify(name)} is no field; fields are ${FIELD_NAMES}, and their groups`)
  return field
}

function invalid(message: string): ProblemError {
  return ProblemError.invalid([{ field: 'fields', message }])
}

function show(field: Field, status: Status, shown: JsonObject): void {
  const path = pathOf(field, status)
  if (path === undefined) return
  let from: Json | undefined = status as unknown as JsonObject
  let to = shown
  for (let i = 0; i < path.length; i++) {
    const name = path[i] as string
    from = isObject(from) && Object.hasOwn(from, name) ? from[name] : undefined
    if (from === undefined) return
    if (i === path.length - 1) {
      // The whole group replaces the part that another field asked for.
      to[name] = bounded(from)
      return
    }
    const known = to[name]
    // The whole group is there already.
    if (known === from) return
    const next: JsonObject = isObject(known) ? known : emptyObject()
    to[name] = next
    to = next
  }
}

/** Returns the names from the outermost object on. */
function pathOf(field: Field, status: Status): readonly string[] | undefined {
  if (field.kind === 'group') return [field.group]
  if (field.kind === 'member') return field.group === undefined ? [field.member] : [field.group, field.member]
  if (field.kind === 'attribute') {
    const names = attributePath(status.attributes, field.path)
    return names && ['attributes', ...names]
  }
  const reported: Json | undefined = (status as unknown as JsonObject).reported
  // A foreign status may lack members that the type promises.
  if (!isObject(reported)) return undefined
  if (Object.hasOwn(reported, field.metric)) return ['reported', field.metric, 'value']
  return field.timed === undefined ? undefined : ['reported', field.timed, 'at']
}

/** Has no prototype, since a device may name a metric `__proto__`. */
function emptyObject(): JsonObject {
  return Object.create(null) as JsonObject
}
