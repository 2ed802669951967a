import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { beforeEach, describe, expect, it } from 'vitest'
import type { Tokens } from '../../../api/auth/tokens.ts'
import { DEFAULT_CHANGES_LIMITS, DEFAULT_LIMITS } from '../../../api/limits.ts'
import { partitionOf } from '../../../processor/contract/partition.ts'
import { systemClock } from '../../../processor/runtime/pause.ts'
import { Changelog } from '../changes/changelog.ts'
import { ask, documentOf } from '../conformance.ts'
import { type Stage, stage } from '../stage.ts'

let on: Stage
beforeEach(async () => {
  on = await stage({ changes: { feed: new Changelog(1).feed(), clock: systemClock, random: () => 0 } })
})

const fileFor = async (headers: Record<string, string>) => {
  const answer = await ask(on.api, { url: '/docs/static/swagger-ui.css', headers })
  return [answer.status, answer.body.type, answer.headers['content-range']]
}

/** A page of docs/, its lines joined. */
async function pageOf(name: string): Promise<string> {
  return (await readFile(join(import.meta.dirname, `../../../docs/${name}.md`), 'utf8')).replaceAll('\n', ' ')
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
  readonly $ref?: string
  readonly type?: string
  readonly format?: string
  readonly enum?: readonly unknown[]
  readonly maximum?: number
  readonly required?: readonly string[]
  readonly items?: Schema
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

interface Told {
  readonly deviceId: string
  readonly freshness?: { readonly partition: number }
  readonly error?: { readonly detail: string }
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

  it('tells the results of batch-get apart by one member that each of them has', async () => {
    const { components } = await documentOf(on.api)
    const { BatchResult } = components.schemas as Record<string, Schema>
    const members = BatchResult?.anyOf?.map(({ $ref }) => components.schemas[$ref?.split('/').at(-1) ?? ''] as Schema)
    for (const member of members ?? []) expect(member.required).toContain('found')
    expect(members?.map(({ properties }) => properties?.found)).toMatchObject([
      { enum: [true] },
      { enum: [true] },
      { enum: [false] },
      { type: 'null' },
    ])
  })

  it('writes the name of a header in one way', async () => {
    const { paths } = await documentOf(on.api)
    const names = Object.values(paths)
      .flatMap((operations) => Object.values(operations))
      .flatMap(({ parameters = [] }) => parameters.filter((each) => each.in === 'header').map(({ name }) => name))
    expect([...new Set(names)].sort()).toEqual(['If-Match', 'If-None-Match', 'Last-Event-ID', 'Prefer'])
  })

  it('tells the type of what is one of several values', async () => {
    const choices = within(await documentOf(on.api)).filter((schema) => schema.enum !== undefined)
    expect(choices.length).toBeGreaterThan(10)
    for (const choice of choices) expect(choice).toMatchObject({ type: expect.stringMatching(/^(string|boolean)$/) })
  })

  it('has truth values for what is true or false', async () => {
    const { paths } = await documentOf(on.api)
    const parameters = paths['/v1/changes']?.get?.parameters ?? []
    expect(parameters).toContainEqual(expect.objectContaining({ name: 'snapshot', schema: { type: 'boolean' } }))
  })

  it('has a name for each answer, for what lists have, and for the data of each event of a stream', async () => {
    const { paths, components } = await documentOf(on.api)
    const { ChangeEvents = {} }: Record<string, Schema> = components.schemas
    const answers = Object.entries(paths)
      .filter(([path]) => path.startsWith('/v1/'))
      .flatMap(([, operations]) => Object.values(operations))
      .flatMap(({ responses }): Schema | Schema[] => responses[200]?.content?.['application/json']?.schema ?? [])
      .flatMap((schema) => schema.anyOf ?? schema)
    const items = within(components).flatMap(({ items: of }) => (of?.type === 'object' ? of : []))
    const events = Object.values(ChangeEvents.properties ?? {})
    expect([answers.length, events.length, items]).toEqual([11, 7, []])
    for (const schema of [...answers, ...events]) expect(schema).toEqual({ $ref: expect.any(String) })
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

  it('says that no operation needs a token where none is asked for', async () => {
    expect((await documentOf(on.api)).security).toEqual([])
  })

  it('describes each operation, with an example of each answer that has a body', async () => {
    const { paths } = await documentOf(on.api)
    for (const { operationId, description, responses } of Object.values(paths).flatMap(Object.values)) {
      expect(description, operationId).toEqual(expect.stringMatching(/\.$/))
      const contents = Object.values<{ content?: object }>(responses).flatMap(({ content = {} }) =>
        Object.values(content),
      )
      for (const { examples = {} } of contents) expect(Object.keys(examples), operationId).not.toEqual([])
    }
  })

  it('has examples in which each device lives where it does among 8 partitions', async () => {
    const { post } = (await documentOf(on.api)).paths['/v1/devices/batch-get'] ?? {}
    const { examples = {} } = post?.responses[200]?.content?.['application/json'] ?? {}
    const { results } = (examples.answer as { value: { results: Told[] } }).value
    const told = results.map(({ freshness, error }) => freshness?.partition ?? Number(/\d+/.exec(error?.detail ?? '')))
    expect(told).toEqual(results.map(({ deviceId }) => partitionOf(deviceId, 8)))
  })

  it('says what the limits of the process are', async () => {
    const limits = { maxBodyBytes: 1_000, maxHeaderBytes: 32 * 1024, requestTimeoutMs: 2_500 }
    const { api } = await stage({ limits, ratePerMinute: 6_000 })
    const { description } = (await documentOf(api)).info
    for (const [what, most, beyond] of [
      ['body', '1,000 bytes; of attributes 32 KiB', '413'],
      ['request line and headers', '32 KiB', '431'],
      ['time for a request to arrive', '2.5 s', '408'],
      ['requests of one caller', '6,000 a minute', '429'],
    ]) {
      expect(description).toContain(`| ${what} | ${most} | ${beyond} |`)
    }
  })

  it('has the limits of docs/http-api.md', async () => {
    const page = await pageOf('http-api')
    const { description } = (await documentOf(on.api)).info
    const [, table = ''] = /^\| of one process \|.*\n(?:\|.*\n)((?:\|.*\n?)+)/m.exec(description) ?? []
    const rows = table.split('\n').filter((row) => !row.startsWith('| requests of one caller '))
    expect(rows.length).toBeGreaterThan(10)
    for (const row of rows) expect(page).toContain(row)
    const { maxLettersExamined, maxLetterBytesExamined, letterMs, maxAnswerBytes } = DEFAULT_LIMITS
    const examined = `${maxLettersExamined.toLocaleString('en-US')} dead letters or ${maxLetterBytesExamined / 1024 ** 2} MiB`
    expect(page).toContain(
      `${examined} of them, for up to ${letterMs / 1000} s, and holds up to ${maxAnswerBytes / 1024 ** 2} MiB`,
    )
  })

  it('has streams with the limits of docs/live-changes.md', async () => {
    const { maxStreams, maxBlockedMs, maxWaitingBytes, lastWordMs, maxBehind, perDeviceMs } = DEFAULT_CHANGES_LIMITS
    const said = [
      `holds ${maxStreams.toLocaleString('en-US')} streams`,
      `takes nothing for ${maxBlockedMs / 1000} s, or when ${maxWaitingBytes / 1024 ** 2} MiB`,
      `within ${lastWordMs / 1000} s`,
      `more than ${maxBehind.toLocaleString('en-US')} changes`,
      `at most ${1000 / perDeviceMs} events a second`,
    ]
    const page = await pageOf('live-changes')
    for (const limit of said) expect(page).toContain(limit)
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
