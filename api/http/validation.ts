import type { FastifySchemaCompiler } from 'fastify'
import type { TSchema } from 'typebox'
import { Compile } from 'typebox/compile'
import type { TLocalizedValidationError } from 'typebox/error'
import { type FieldError, ProblemError } from './problem.ts'

/** What the parts of a request are called in a problem when no field within them is to blame. */
const PARTS: Readonly<Record<string, string>> = {
  params: 'path',
  querystring: 'query',
  body: 'body',
  headers: 'headers',
}

/**
 * Strict validation by the schemas of the document: nothing is converted but whole numbers in the query, nothing unknown
 * is dropped, and every error names its field.
 */
export const compileValidator: FastifySchemaCompiler<TSchema> = ({ schema, httpPart }) => {
  const validator = Compile(schema)
  return (given: unknown) => {
    const value = httpPart === 'querystring' ? withIntegers(schema, given as Record<string, unknown>) : given
    if (validator.Check(value)) return { value }
    const errors = fieldErrors(validator.Errors(value), PARTS[httpPart ?? 'body'] as string)
    return {
      error: ProblemError.invalid(httpPart === 'querystring' ? errors.map(withRepetition(schema, value)) : errors),
    }
  }
}

/** No parameter takes more than one value; Fastify makes an array of them, whose type is not what the client got wrong. */
function withRepetition(schema: TSchema, query: unknown): (error: FieldError) => FieldError {
  const { properties = {} } = schema as { properties?: object }
  const given = query as Readonly<Record<string, unknown>>
  return (error) =>
    Object.hasOwn(properties, error.field) && Array.isArray(given[error.field])
      ? { ...error, message: 'is given more than once' }
      : error
}

const INTEGER = /^(0|-?[1-9]\d{0,14})$/

function withIntegers(schema: TSchema, query: Record<string, unknown>): Record<string, unknown> {
  const { properties } = schema as { properties?: Record<string, { type?: string }> }
  const value = { ...query }
  for (const name in properties) {
    const text = value[name]
    if (properties[name]?.type === 'integer' && typeof text === 'string' && INTEGER.test(text))
      value[name] = Number(text)
  }
  return value
}

function fieldErrors(errors: readonly TLocalizedValidationError[], part: string): FieldError[] {
  const found: FieldError[] = []
  for (const error of errors) {
    // Beside `additionalProperties` there is an error of keyword `boolean` for each property, which names it.
    if (error.keyword === 'additionalProperties') continue
    if (error.keyword === 'required') {
      const { requiredProperties } = error.params
      for (const name of requiredProperties) found.push({ field: name, message: 'is required' })
    } else {
      const message = error.keyword === 'boolean' ? 'is not known' : error.message
      found.push({ field: fieldOf(error.instancePath) || part, message })
    }
  }
  return found
}

/** `/deviceIds/3` as `deviceIds[3]`. */
function fieldOf(pointer: string): string {
  return pointer
    .slice(1)
    .replace(/\/(\d+)/g, '[$1]')
    .replaceAll('/', '.')
    .replaceAll('~1', '/')
    .replaceAll('~0', '~')
}
