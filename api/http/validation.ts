import type { FastifySchemaCompiler } from 'fastify'
import type { TSchema } from 'typebox'
import { Compile } from 'typebox/compile'
import type { TLocalizedValidationError } from 'typebox/error'
import { type FieldError, ProblemError } from './problem.ts'

/** Names the part of the request in a problem that blames no field. */
const PARTS: Readonly<Record<string, string>> = {
  params: 'path',
  querystring: 'query',
  body: 'body',
  headers: 'headers',
}

/**
 * Validates strictly by the schemas of the document: it converts only whole numbers and truth values in the query,
 * drops nothing unknown, and names the field of every error.
 */
export const compileValidator: FastifySchemaCompiler<TSchema> = ({ schema, httpPart }) => {
  const validator = Compile(schema)
  return (given: unknown) => {
    const value = httpPart === 'querystring' ? converted(schema, given as Record<string, unknown>) : given
    if (validator.Check(value)) return { value }
    const errors = fieldErrors(validator.Errors(value), PARTS[httpPart ?? 'body'] as string)
    return { error: ProblemError.invalid(httpPart === 'querystring' ? oncePerName(errors, value) : errors) }
  }
}

const UNKNOWN = 'is not known'

/** A parameter that comes twice is a list, which none of ours may be. Other errors of that list are left out. */
function oncePerName(errors: readonly FieldError[], query: unknown): FieldError[] {
  const given = query as Record<string, unknown>
  const told = new Map<string, FieldError>()
  const others: FieldError[] = []
  for (const error of errors) {
    if (!Array.isArray(given[error.field]) || error.message === UNKNOWN) others.push(error)
    else told.set(error.field, { field: error.field, message: 'must be given once' })
  }
  return [...told.values(), ...others]
}

const INTEGER = /^(0|-?[1-9]\d{0,14})$/

function converted(schema: TSchema, query: Record<string, unknown>): Record<string, unknown> {
  const { properties } = schema as { properties?: Record<string, { type?: string }> }
  const value = { ...query }
  for (const name in properties) {
    const text = value[name]
    const type = properties[name]?.type
    if (type === 'integer' && typeof text === 'string' && INTEGER.test(text)) value[name] = Number(text)
    if (type === 'boolean' && (text === 'true' || text === 'false')) value[name] = text === 'true'
  }
  return value
}

function fieldErrors(errors: readonly TLocalizedValidationError[], part: string): FieldError[] {
  const found: FieldError[] = []
  for (const error of errors) {
    // Beside `additionalProperties` each property has an error of keyword `boolean`, which names it.
    if (error.keyword === 'additionalProperties') continue
    if (error.keyword === 'required') {
      const { requiredProperties } = error.params
      for (const name of requiredProperties) found.push({ field: name, message: 'is required' })
    } else {
      found.push({ field: fieldOf(error.instancePath) || part, message: messageOf(error) })
    }
  }
  return found
}

function messageOf(error: TLocalizedValidationError): string {
  if (error.keyword === 'boolean') return UNKNOWN
  if (error.keyword === 'type' && error.params.type === 'boolean') return 'must be true or false'
  if (error.keyword === 'enum') return `must be one of ${error.params.allowedValues.join(', ')}`
  return error.message
}

/** Turns `/deviceIds/3` into `deviceIds[3]`. */
function fieldOf(pointer: string): string {
  return pointer
    .slice(1)
    .replace(/\/(\d+)/g, '[$1]')
    .replaceAll('/', '.')
    .replaceAll('~1', '/')
    .replaceAll('~0', '~')
}
