import { beforeEach, describe, expect, it } from 'vitest'
import type { Tokens } from '../../api/auth/tokens.ts'
import { ask, documentOf } from './conformance.ts'
import { type Stage, stage } from './stage.ts'

let on: Stage
beforeEach(async () => {
  on = await stage()
})

const fileFor = async (headers: Record<string, string>) => {
  const answer = await ask(on.api, { url: '/docs/static/swagger-ui.css', headers })
  return [answer.status, answer.body.type, answer.headers['content-range']]
}

describe('/docs', () => {
  it('shows the document by what this process alone serves', async () => {
    const page = await on.api.inject('/docs')
    expect(page.statusCode).toBe(200)
    expect(page.headers['content-security-policy']).toContain("default-src 'none'; script-src 'self'")
    const sources = Array.from(page.body.matchAll(/(?:src|href)="([^"]+)"/g), ([, source]) => source as string)
    expect(sources.length).toBeGreaterThan(4)
    for (const source of sources) {
      expect(source).toMatch(/^\/docs\/static\//)
      expect((await on.api.inject(source)).statusCode, source).toBe(200)
    }
    const shown = (await on.api.inject('/docs/json')).json()
    expect(shown).toEqual(await documentOf(on.api))
  })

  it('has no other files', async () => {
    const outside = ['%2e%2e/x', '..%2fpackage.json', '/etc/passwd', '%00', 'a%5c..%5cb'].map(
      (to) => `/docs/static/${to}`,
    )
    for (const url of ['/docs/static/nope.js', '/docs/x', ...outside]) {
      expect((await ask(on.api, url)).status, url).toBe(404)
    }
  })

  it('says what of a file cannot be had', async () => {
    const range = [416, 'urn:tidemark:problem:range-not-satisfiable', expect.stringMatching(/^bytes \*\/\d+$/)]
    expect(await fileFor({ range: 'bytes=99999999-' })).toEqual(range)
    const failed = [412, 'urn:tidemark:problem:precondition-failed', undefined]
    expect(await fileFor({ 'if-match': '"x"' })).toEqual(failed)
    expect(await fileFor({ 'if-unmodified-since': 'Thu, 01 Jan 1970 00:00:00 GMT' })).toEqual(failed)
  })
})

interface Schema {
  readonly type?: string
  readonly format?: string
  readonly maximum?: number
  readonly properties?: Readonly<Record<string, Schema>>
  readonly anyOf?: readonly Schema[]
  readonly oneOf?: readonly Schema[]
  readonly allOf?: readonly Schema[]
}

/** Every schema within `node`, itself included. */
function within(node: unknown): Schema[] {
  if (typeof node !== 'object' || node === null) return []
  return [node, ...Object.values(node).flatMap(within)]
}

describe('the document, for generators of code', () => {
  it('has a name for each of several objects that may be in one place', async () => {
    const unions = within(await documentOf(on.api)).map(({ anyOf = [], oneOf = [], allOf = [] }) =>
      [...anyOf, ...oneOf, ...allOf].filter(({ type }) => type === undefined || type === 'object'),
    )
    const several = unions.filter((objects) => objects.length > 1)
    expect(several.length).toBeGreaterThan(0)
    for (const member of several.flat()) expect(member).toEqual({ $ref: expect.any(String) })
  })

  it('has a name for a body that comes in several media types', async () => {
    const { paths } = await documentOf(on.api)
    const bodies = Object.values(paths)
      .flatMap(Object.values)
      .map(({ requestBody }) => requestBody?.content ?? {})
    const several = bodies.filter((content) => Object.keys(content).length > 1)
    expect(several).toHaveLength(1)
    for (const { schema } of several.flatMap(Object.values)) expect(schema).toEqual({ $ref: expect.any(String) })
  })
  it('tells of each operation which token it needs, or that it needs none', async () => {
    const { api } = await stage({ tokens: {} as Tokens })
    const { paths } = await documentOf(api)
    for (const [path, operations] of Object.entries(paths)) {
      for (const { security } of Object.values(operations)) expect(security, path).toBeDefined()
    }
  })

  it('says how many bits whole numbers have, where it does not bound them', async () => {
    const numbers = within(await documentOf(on.api)).filter(({ type, maximum }) => type === 'integer' && !maximum)
    expect(numbers.length).toBeGreaterThan(10)
    for (const number of numbers) expect(number).toMatchObject({ format: expect.stringMatching(/^int(32|64)$/) })
    const { components } = await documentOf(on.api)
    for (const name of ['rev', 'session', 'messages']) {
      const found = within(components).flatMap(({ properties = {} }) => properties[name] ?? [])
      for (const number of found) expect(number, name).toMatchObject({ format: 'int64' })
      expect(found).not.toEqual([])
    }
  })

  it('describes the tags that operations have', async () => {
    const { paths, tags } = await documentOf(on.api)
    const used = Object.values(paths).flatMap((operations) => Object.values(operations).flatMap((each) => each.tags))
    expect(tags.map(({ name }) => name).sort()).toEqual([...new Set(used)].sort())
    for (const { description } of tags) expect(description).toEqual(expect.any(String))
  })
})
