import type { AddressInfo } from 'node:net'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import type { Api } from '../../../api/app.ts'
import type { StatusReader } from '../../../processor/contract/query.ts'
import { systemClock } from '../../../processor/runtime/pause.ts'
import { Changelog } from '../changes/changelog.ts'
import { ask } from '../conformance.ts'
import { type Stage, stage } from '../stage.ts'

/** Requests counted, by labels. */
function countsIn(text: string): Record<string, number> {
  const counts = text.matchAll(/^tidemark_http_request_duration_seconds_count\{(.*)\} (\d+)$/gm)
  return Object.fromEntries(Array.from(counts, ([, labels, count]) => [labels as string, Number(count)]))
}

let on: Stage
beforeEach(async () => {
  on = await stage()
})

describe('GET /metrics', () => {
  it('has the requests by method, route and status', async () => {
    await ask(on.api, '/v1/devices/nobody')
    await ask(on.api, '/v1/devices?limit=0')
    await on.api.inject({ method: 'DELETE', url: '/livez' })
    for (const url of ['/any/path', '/docs/static/nope.js']) await on.api.inject(url)
    const { status, headers, text } = await ask(on.api, '/metrics')
    expect(status).toBe(200)
    expect(headers['content-type']).toMatch(/^text\/plain; version=0\.0\.4/)
    expect(countsIn(text)).toEqual({
      // `ask` holds each answer against the document.
      'method="GET",route="/openapi.json",status="200"': 2,
      'method="GET",route="/v1/devices/:deviceId",status="404"': 1,
      'method="GET",route="/v1/devices",status="400"': 1,
      'method="any",route="none",status="405"': 1,
      'method="any",route="none",status="404"': 2,
    })
    const sums = Array.from(
      text.matchAll(/^tidemark_http_request_duration_seconds_sum\{.*\} (\S+)$/gm),
      ([, sum]) => sum,
    )
    for (const sum of sums) expect(Number(sum)).toBeGreaterThan(0)
    expect(text).toContain('tidemark_http_reads_in_flight{kind="single"} 0')
  })
})

describe('a request whose client leaves before the end of its answer', () => {
  const answers = Promise.withResolvers<never>()
  const read = vi.fn(() => answers.promise)
  const log = new Changelog(2)
  const reader = { ...log.reader, get: read, getMany: read } as unknown as StatusReader
  let api: Api
  beforeEach(async () => {
    const changes = { feed: log.feed(), clock: systemClock, random: () => 0 }
    api = (await stage({ reader, changes })).api
    await api.listen({ host: '127.0.0.1', port: 0 })
  })
  afterEach(() => api.close())

  const url = (path: string) => `http://127.0.0.1:${(api.server.address() as AddressInfo).port}${path}`
  const counted = async () => countsIn((await api.inject('/metrics')).body)

  it('counts once, as aborted, whatever its answer would be', async () => {
    const leave = new AbortController()
    const { signal } = leave
    const headers = { 'content-type': 'application/json' }
    const asked = Promise.allSettled([
      fetch(url('/v1/devices/a'), { signal }),
      fetch(url('/v1/devices/batch-get'), { method: 'POST', headers, body: '{"deviceIds":["a"]}', signal }),
    ])
    await vi.waitFor(() => expect(read).toHaveBeenCalledTimes(2))
    leave.abort()
    const aborted = {
      'method="GET",route="/v1/devices/:deviceId",status="aborted"': 1,
      'method="POST",route="/v1/devices/batch-get",status="aborted"': 1,
    }
    await vi.waitFor(async () => expect(await counted()).toMatchObject(aborted))
    answers.reject(new Error('late'))
    await asked
    const { 'method="GET",route="/metrics",status="200"': _, ...others } = await counted()
    expect(others).toEqual(aborted)
  })

  it('is counted so when it was a stream, too', async () => {
    const leave = new AbortController()
    const { body } = await fetch(url('/v1/changes'), { signal: leave.signal })
    await body?.getReader().read()
    expect(await counted()).not.toHaveProperty('method="GET",route="/v1/changes",status="aborted"')
    leave.abort()
    await vi.waitFor(async () =>
      expect(await counted()).toMatchObject({ 'method="GET",route="/v1/changes",status="aborted"': 1 }),
    )
  })
})
