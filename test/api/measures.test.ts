import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { ask } from './conformance.ts'
import { type Stage, stage } from './stage.ts'

let on: Stage
beforeEach(async () => {
  on = await stage()
})
afterEach(() => on.api.close())

describe('GET /metrics', () => {
  it('has the requests by method, route and status', async () => {
    await ask(on.api, '/v1/devices/nobody')
    await ask(on.api, '/v1/devices?limit=0')
    await on.api.inject({ method: 'DELETE', url: '/livez' })
    for (const url of ['/any/path', '/docs/static/nope.js']) await on.api.inject(url)
    const { status, headers, text } = await ask(on.api, '/metrics')
    expect(status).toBe(200)
    expect(headers['content-type']).toMatch(/^text\/plain; version=0\.0\.4/)
    const counts = text.matchAll(/^tidemark_http_request_duration_seconds_count\{(.*)\} (\d+)$/gm)
    expect(Object.fromEntries(Array.from(counts, ([, labels, count]) => [labels, Number(count)]))).toEqual({
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
