import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { createContext, runInContext } from 'node:vm'
import { EventSource } from 'eventsource'
import { Registry } from 'prom-client'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { ChangeStreams } from '../../../api/changes/streams.ts'
import { ApiServer } from '../../../api/server.ts'
import { systemClock } from '../../../processor/runtime/pause.ts'
import { freePorts } from '../../../simulators/program.ts'
import { ask, type Document, validatorOf } from '../conformance.ts'
import { Fleet } from '../fleet.ts'
import { noLetters, noWriter, routed, silent, stage } from '../stage.ts'
import { Changelog } from './changelog.ts'

const closing: (() => unknown)[] = []
afterEach(async () => {
  for (const close of closing.splice(0).toReversed()) await close()
})

async function serve(log: Changelog, { port = 0, limits = {}, feed = log.feed() } = {}): Promise<ApiServer> {
  const server = await ApiServer.open({
    reader: Object.assign(routed(new Fleet(log.partitions, ['a'])), log.reader),
    writer: noWriter,
    letters: noLetters,
    changes: { feed, clock: systemClock, random: () => 0, limits: { retryMs: 10, ...limits } },
    checks: async () => [],
    registry: new Registry(),
    logger: silent,
    host: '127.0.0.1',
    port,
  })
  closing.push(() => server[Symbol.asyncDispose]())
  return server
}

/** What a client of somebody else's making sees, as `name deviceId`. */
function listen(url: string, fetcher = fetch): { source: EventSource; seen: string[] } {
  const source = new EventSource(url, { fetch: fetcher })
  closing.push(() => source.close())
  const seen: string[] = []
  for (const name of ['reset', 'enter', 'change', 'leave', 'snapshot-end', 'end']) {
    source.addEventListener(name, ({ data }) => {
      const { deviceId, reason } = JSON.parse(data) as { deviceId?: string; reason?: string }
      seen.push([name, deviceId ?? reason].filter((part) => part !== undefined).join(' '))
    })
  }
  return { source, seen }
}

type Follow = (url: string, tell: (name: string, body: { deviceId?: string }) => void) => void

/** The client of docs/live-changes.md, in a world where there is an EventSource. */
async function clientOfPage(): Promise<Follow> {
  const page = await readFile(join(import.meta.dirname, '../../../docs/live-changes.md'), 'utf8')
  const [, code] = /^```js\n(function follow[\s\S]+?^}\n)/m.exec(page) ?? []
  class Closed extends EventSource {
    constructor(url: string) {
      super(url)
      closing.push(() => this.close())
    }
  }
  const context = createContext({ EventSource: Closed, setTimeout })
  return runInContext(`${code}follow`, context) as Follow
}

describe('GET /v1/changes', () => {
  it('is followed by an EventSource, from one process to the next', async () => {
    const log = new Changelog(4)
    log.put('a', 1)
    const [port] = (await freePorts(1)) as [number]
    const first = await serve(log, { port })
    const { seen } = listen(`${first.url}/v1/changes?snapshot=true`)
    await vi.waitFor(() => expect(seen).toEqual(['reset start', 'enter a', 'snapshot-end']))
    log.put('a', 2)
    await vi.waitFor(() => expect(seen.slice(3)).toEqual(['change a']))
    await first[Symbol.asyncDispose]()
    log.put('b', 1)
    log.put('a', undefined)
    await serve(log, { port })
    await vi.waitFor(() => expect(seen.slice(4).toSorted()).toEqual(['end shutdown', 'enter b', 'leave a']), 5_000)
  })

  it('is followed by the client of docs/live-changes.md through what an EventSource gives up at', async () => {
    const log = new Changelog(4)
    log.put('a', 1)
    const [port] = (await freePorts(1)) as [number]
    const first = await serve(log, { port })
    const seen: string[] = []
    const follow = await clientOfPage()
    follow(`${first.url}/v1/changes?snapshot=true`, (name, { deviceId = '' }) =>
      seen.push(`${name} ${deviceId}`.trim()),
    )
    await vi.waitFor(() => expect(seen).toEqual(['reset', 'enter a', 'snapshot-end']))
    await first[Symbol.asyncDispose]()
    const full = await serve(log, { port, limits: { maxStreams: 0 } })
    const metrics = async () => (await fetch(`${full.url}/metrics`)).text()
    const refused = /_count\{[^}]*route="\/v1\/changes"[^}]*status="503"/
    await vi.waitFor(async () => expect(await metrics()).toMatch(refused), 10_000)
    log.put('b', 1)
    log.put('a', undefined)
    await full[Symbol.asyncDispose]()
    await serve(log, { port })
    await vi.waitFor(() => expect(seen.slice(3).toSorted()).toEqual(['end', 'enter b', 'leave a']), 20_000)
  })

  it('has each event that the document names, with data as it says', async () => {
    const log = new Changelog(1)
    log.put('a', 1)
    const server = await serve(log, { limits: { heartbeatMs: 50 } })
    const document = (await (await fetch(`${server.url}/openapi.json`)).json()) as Document
    const { properties } = document.components.schemas.ChangeEvents as { properties: Record<string, object> }
    const source = new EventSource(`${server.url}/v1/changes?snapshot=true`)
    closing.push(() => source.close())
    const seen = new Map<string, unknown>()
    for (const name of Object.keys(properties)) {
      source.addEventListener(name, ({ data }) => seen.set(name, JSON.parse(data)))
    }
    const comes = (name: string) => vi.waitFor(() => expect([...seen.keys()]).toContain(name))
    await comes('snapshot-end')
    log.put('a', 2)
    await comes('change')
    log.put('a', undefined)
    await comes('leave')
    await comes('position')
    await server[Symbol.asyncDispose]()
    await comes('end')
    expect(new Set(seen.keys())).toEqual(new Set(Object.keys(properties)))
    for (const [name, data] of seen) {
      expect(validatorOf(document, properties[name] as object)(data), `${name} ${JSON.stringify(data)}`).toBe(true)
    }
  })

  it.each(['/v1/changes?snapshot=true&', '/v1/devices/a/changes?snapshot=true&'])(
    'tells at %s the fields that were asked for',
    async (path) => {
      const log = new Changelog(1)
      log.put('a', 1)
      const { url } = await serve(log)
      const source = new EventSource(`${url}${path}fields=rev,reported.x,attributes.site`)
      closing.push(() => source.close())
      const seen: [name: string, data: object][] = []
      for (const name of ['enter', 'change', 'leave'])
        source.addEventListener(name, ({ data }) => seen.push([name, JSON.parse(data)]))
      await vi.waitFor(() => expect(seen).toHaveLength(1))
      log.put('a', 2)
      await vi.waitFor(() => expect(seen).toHaveLength(2))
      log.put('a', undefined)
      await vi.waitFor(() => expect(seen).toHaveLength(3))
      expect(seen).toEqual([
        ['enter', { deviceId: 'a', rev: 1, reported: { x: { value: 1 } } }],
        ['change', { deviceId: 'a', rev: 2, reported: { x: { value: 2 } } }],
        ['leave', { deviceId: 'a', deleted: true }],
      ])
      const document = (await (await fetch(`${url}/openapi.json`)).json()) as Document
      const isPart = validatorOf(document, document.components.schemas.DeviceStatusPart as object)
      expect(seen.slice(0, 2).filter(([, data]) => !isPart(data))).toEqual([])
      const refused = await fetch(`${url}${path}fields=rev,nonsense`)
      expect([refused.status, await refused.json()]).toMatchObject([400, { errors: [{ field: 'fields' }] }])
    },
  )

  it('resumes by a parameter for those who cannot set headers, and by the header where there are both', async () => {
    const log = new Changelog(1)
    const { url } = await serve(log)
    for (const [query, headers, reason] of [
      ['?lastEventId=nonsense', {}, 'position-malformed'],
      ['?lastEventId=nonsense', { 'last-event-id': '' }, 'start'],
      ['?lastEventId=-', {}, 'start'],
      ['?lastEventId=nonsense', { 'last-event-id': '-' }, 'start'],
      ['', { 'last-event-id': 'é"\u0001' }, 'position-malformed'],
    ] as const) {
      const stop = new AbortController()
      const response = await fetch(`${url}/v1/changes${query}`, { headers: encoded(headers), signal: stop.signal })
      expect(response.headers.get('content-type')).toBe('text/event-stream; charset=utf-8')
      expect(response.headers.get('cache-control')).toBe('no-store')
      expect(await until(response, '"snapshot"')).toContain(`{"reason":"${reason}","snapshot":false}`)
      stop.abort()
    }
  })

  it('begins anew for an EventSource that was cut within a snapshot, whatever its URL names', async () => {
    const log = new Changelog(1)
    const { url } = await serve(log)
    const opened = await until(await fetch(`${url}/v1/changes`), '.0\n\n')
    const [, position] = /^id: (.+)$/m.exec(opened) ?? []
    log.put('a', 1)
    const query = 'snapshot=true&lastEventId='
    const { seen } = listen(`${url}/v1/changes?${query}${position}`, async (...asked) => {
      if (seen.length > 0) return fetch(...asked)
      const response = await fetch(`${url}/v1/changes?${query}nonsense`)
      const [reset] = /[^]*?event: reset[^]*?\n\n/.exec(await until(response, '\nevent: enter')) ?? []
      return new Response(reset, { headers: response.headers })
    })
    const told = ['reset position-malformed', 'reset start', 'enter a', 'snapshot-end']
    await vi.waitFor(() => expect(seen).toEqual(told), 10_000)
  })

  it('answers HEAD without a stream', async () => {
    const { url } = await serve(new Changelog(1))
    const response = await fetch(`${url}/v1/changes`, { method: 'HEAD' })
    expect([response.status, await response.text()]).toEqual([200, ''])
  })

  it('is refused with 503 and Retry-After beyond the limit, and free again when a client has gone', async () => {
    const { url } = await serve(new Changelog(1), { limits: { maxStreams: 1 } })
    const { source, seen } = listen(`${url}/v1/changes`)
    await vi.waitFor(() => expect(seen).toEqual(['reset start']))
    const refused = await fetch(`${url}/v1/changes`)
    expect([refused.status, refused.headers.get('retry-after')]).toEqual([503, '1'])
    expect(await refused.json()).toMatchObject({ type: 'urn:tidemark:problem:overloaded' })
    source.close()
    await vi.waitFor(async () => {
      expect(await (await fetch(`${url}/metrics`)).text()).toContain('tidemark_changes_streams 0')
    })
    const admitted = await fetch(`${url}/v1/changes`)
    await admitted.body?.cancel()
    expect(admitted.status).toBe(200)
  })

  it('is refused with 503 when the process stops while it opens', async () => {
    const log = new Changelog(1)
    const feed = log.feed()
    const { promise: answers, resolve: answer } = Promise.withResolvers<void>()
    const bounds = vi.fn<typeof feed.bounds>((of) => answers.then(() => feed.bounds(of)))
    const server = await serve(log, { feed: { ...feed, bounds } })
    const opening = fetch(`${server.url}/v1/changes`)
    await vi.waitFor(() => expect(bounds).toHaveBeenCalled())
    using close = vi.spyOn(ChangeStreams.prototype, 'close')
    const stopped = server[Symbol.asyncDispose]()
    await vi.waitFor(() => expect(close).toHaveBeenCalled())
    answer()
    const refused = await opening
    expect([refused.status, refused.headers.get('retry-after')]).toEqual([503, '1'])
    expect(refused.headers.has('x-accel-buffering')).toBe(false)
    expect(await refused.json()).toMatchObject({ detail: 'this process is shutting down' })
    await stopped
  })

  it('cuts a client that opens a stream and does not read it, while others are told all', async () => {
    const log = new Changelog(1)
    log.padding = 64 * 1024
    const { url } = await serve(log, { limits: { maxWaitingBytes: 1024 * 1024, writeMs: 0, lastWordMs: 10 } })
    const { seen } = listen(`${url}/v1/changes`)
    const lazy = await fetch(`${url}/v1/changes`)
    closing.push(() => lazy.body?.cancel())
    await vi.waitFor(() => expect(seen).toEqual(['reset start']))
    // Beyond what the sockets in between hold, which is some MiB.
    let devices = 0
    let metrics = ''
    while (!metrics.includes('tidemark_changes_streams_ended_total{reason="slow-reader"} 1')) {
      expect(devices).toBeLessThan(1_000)
      for (let i = 0; i < 10; i++) log.put(`device-${devices++}`, i)
      await vi.waitFor(() => expect(seen.length).toBe(devices + 1), 5_000)
      metrics = await (await fetch(`${url}/metrics`)).text()
    }
    expect(metrics).toContain('tidemark_changes_streams 1')
  })
})

describe('GET /v1/devices/{deviceId}/changes', () => {
  it('is of that device', async () => {
    const log = new Changelog(4)
    const { url } = await serve(log)
    const { seen } = listen(`${url}/v1/devices/a/changes?snapshot=true`)
    await vi.waitFor(() => expect(seen).toEqual(['reset start', 'snapshot-end']))
    log.put('b', 1)
    log.put('a', 1)
    await vi.waitFor(() => expect(seen.slice(2)).toEqual(['enter a']))
  })
})

describe('bad input', () => {
  it.each([
    ['/v1/changes?unknown=1', 'unknown'],
    ['/v1/changes?q=reported.x:[1', 'q'],
    ['/v1/changes?q=nothing:1', 'q'],
    [`/v1/changes?lastEventId=${'0'.repeat(10_001)}`, 'lastEventId'],
    ['/v1/devices/a/changes?q=b', 'q'],
    ['/v1/devices/a%20b/changes', 'deviceId'],
  ])('is answered with 400 that names it: %#', async (url, field) => {
    const log = new Changelog(1)
    const { api } = await stage({ changes: { feed: log.feed(), clock: systemClock, random: () => 0 } })
    const { status, body } = await ask(api, url)
    expect([status, body.errors[0]?.field]).toEqual([400, field])
  })

  it('is told what a truth value must be', async () => {
    const { api } = await stage({ changes: { feed: new Changelog(1).feed(), clock: systemClock, random: () => 0 } })
    const { status, body } = await ask(api, '/v1/changes?snapshot=yes')
    expect([status, body.errors]).toEqual([400, [{ field: 'snapshot', message: 'must be true or false' }]])
  })
})

/** Header values are bytes. */
function encoded(headers: Readonly<Record<string, string>>): Record<string, string> {
  return Object.fromEntries(Object.entries(headers).map(([name, value]) => [name, value.replace('\u0001', '')]))
}

async function until(response: Response, part: string): Promise<string> {
  let text = ''
  const decoder = new TextDecoder()
  for await (const chunk of response.body ?? []) {
    text += decoder.decode(chunk as Uint8Array, { stream: true })
    if (text.includes(part)) break
  }
  return text
}
