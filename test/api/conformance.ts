import type { InjectOptions } from 'fastify'
import { Compile } from 'typebox/compile'
import { expect } from 'vitest'
import type { Api } from '../../api/app.ts'
import type { Freshness } from '../../processor/contract/query.ts'

interface Operation {
  readonly responses: Record<
    string,
    {
      content?: Record<string, { schema: object; examples?: Record<string, Example> }>
      headers?: Record<string, object>
    }
  >
  readonly requestBody?: { content: Record<string, { schema: object; example?: unknown }> }
  readonly parameters?: { name: string; in: string; schema: object }[]
  readonly security?: readonly object[]
  readonly operationId: string
  readonly description?: string
  readonly tags: readonly string[]
}
interface Example {
  readonly value: unknown
}
export interface Document {
  readonly openapi: string
  readonly info: { readonly description: string }
  readonly security?: readonly object[]
  readonly paths: Record<string, Record<string, Operation>>
  readonly components: { readonly schemas: Record<string, object> }
  readonly tags: readonly { readonly name: string; readonly description: string }[]
}
/** A JSON answer. Which members it has depends on what was asked; its shape is held to the document. */
export interface Body {
  readonly type: string
  readonly status: number
  readonly detail: string
  readonly errors: readonly { readonly field: string; readonly message: string }[]
  readonly title: string
  readonly position: string
  readonly deviceId: string
  readonly rev: number
  readonly attributes: unknown
  readonly reported: Record<string, { readonly value: unknown }>
  readonly freshness: Freshness
  readonly items: readonly Body[]
  readonly results: readonly Body[]
  readonly nextCursor: string | undefined
  readonly partitions: readonly unknown[]
  readonly totals: unknown
  readonly links: Record<string, string>
}

export interface Answered {
  readonly status: number
  readonly headers: Record<string, string | undefined>
  readonly body: Body
  readonly text: string
}

export async function documentOf(api: Api): Promise<Document> {
  return (await api.inject('/openapi.json')).json()
}

/** The schema with every reference put in place, as a validator. */
export function validatorOf(document: Document, schema: object): (value: unknown) => boolean {
  const validator = Compile(inlined(document, schema) as object)
  return (value) => validator.Check(value)
}

function inlined(document: Document, node: unknown): unknown {
  if (Array.isArray(node)) return node.map((inner) => inlined(document, inner))
  if (typeof node !== 'object' || node === null) return node
  const { $ref } = node as { $ref?: string }
  if ($ref === undefined) {
    return Object.fromEntries(Object.entries(node).map(([name, inner]) => [name, inlined(document, inner)]))
  }
  expect($ref).toMatch(/^#\/components\/schemas\/\w+$/)
  const target = document.components.schemas[$ref.split('/').at(-1) as string]
  expect(target, $ref).toBeDefined()
  return inlined(document, target)
}

/** Headers that the document tells of at each answer that may have them. */
const TOLD =
  /^(accept-encoding|accept-patch|etag|link|location|preference-applied|retry-after|tidemark-.*|www-authenticate)$/

/** Statuses of problems that are in a part of the request. */
const BLAMING = [400, 401, 403, 412, 413, 415]

/** Asks by inject(), and holds what is answered to the document: the status, the media type, the shape, the headers. */
export async function ask(api: Api, request: (InjectOptions & { url: string }) | string): Promise<Answered> {
  const options = typeof request === 'string' ? { url: request } : request
  const response = await api.inject(options)
  if (response.statusCode === 304) {
    const headers = response.headers as Answered['headers']
    return { status: 304, headers, body: {} as Body, text: response.body }
  }
  const document = await documentOf(api)
  const type = String(response.headers['content-type']).split(';')[0] as string
  const body: unknown = type.endsWith('json') ? response.json() : response.body
  const operation = operationOf(document, options.url, (options.method ?? 'GET').toLowerCase())
  const headers = response.headers as Record<string, string | undefined>
  const told = Object.keys(operation?.responses[response.statusCode]?.headers ?? {}).map((name) => name.toLowerCase())
  if (operation !== undefined) {
    const untold = Object.keys(headers).filter((name) => TOLD.test(name) && !told.includes(name))
    expect(untold, `headers of ${response.statusCode} of ${options.url} are documented`).toEqual([])
  }
  if (response.statusCode === 204) {
    expect(operation?.responses[204], `204 of ${options.url} is documented`).toBeDefined()
    expect(response.body).toBe('')
    return { status: 204, headers, body: body as Body, text: '' }
  }
  const schema =
    operation === undefined
      ? document.components.schemas.Problem
      : operation.responses[response.statusCode]?.content?.[type]?.schema
  expect(schema, `${response.statusCode} ${type} of ${options.url} is documented`).toBeDefined()
  expect(validatorOf(document, schema as object)(body), response.body).toBe(true)
  if (operation !== undefined && BLAMING.includes(response.statusCode)) {
    const blamed = (body as Body).errors?.map(({ field }) => field) ?? []
    expect(blamed.length, `${response.body} names what is to blame`).toBeGreaterThan(0)
  }
  return { status: response.statusCode, headers, body: body as Body, text: response.body }
}

/** Undefined: not in the document, where only problems are answered. */
function operationOf(document: Document, url: string, method: string): Operation | undefined {
  const path = url.split('?', 1)[0] as string
  const known = Object.keys(document.paths).filter(
    (template) => matches(template, path) && document.paths[template]?.[method],
  )
  return document.paths[known.find((template) => template === path) ?? known[0] ?? '']?.[method]
}

function matches(template: string, path: string): boolean {
  return new RegExp(`^${template.replaceAll('.', '\\.').replace(/\{\w+\}/g, '[^/]*')}$`).test(path)
}
