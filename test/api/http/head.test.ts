import type { OutgoingHttpHeaders } from 'node:http'
import { beforeEach, describe, expect, it } from 'vitest'
import { systemClock } from '../../../processor/runtime/pause.ts'
import { Changelog } from '../changes/changelog.ts'
import { type Stage, stage } from '../stage.ts'

let on: Stage
beforeEach(async () => {
  on = await stage({ changes: { feed: new Changelog(1).feed(), clock: systemClock, random: () => 0 } })
  for (let i = 0; i < 500; i++) on.fleet.put(`d${i}`)
})

const TOLD = ['content-length', 'content-type', 'content-encoding', 'vary', 'etag'] as const

function told(headers: OutgoingHttpHeaders): unknown[] {
  return TOLD.map((name) => headers[name])
}

describe('HEAD', () => {
  it.each([
    'a little: /livez',
    'nothing at this path: /nowhere',
    'one device, which is not compressed: /v1/devices/d0',
    'what is compressed at once: /v1/devices?limit=20',
    'what is compressed bit by bit: /v1/devices?limit=500',
    'a file: /docs/static/swagger-ui.css',
  ])('tells length and encoding of what GET answers, or nothing of them: %s', async (named) => {
    const url = named.split(': ')[1] as string
    for (const encoding of [undefined, 'identity', 'gzip', 'gzip, deflate, br']) {
      const headers = encoding === undefined ? {} : { 'accept-encoding': encoding }
      const [get, head] = [await on.api.inject({ url, headers }), await on.api.inject({ method: 'HEAD', url, headers })]
      expect([head.statusCode, head.body]).toEqual([get.statusCode, ''])
      expect(told(head.headers), encoding).toEqual(told(get.headers))
    }
  })

  it('tells no length of what has not changed', async () => {
    const { etag } = (await on.api.inject('/v1/devices/d0')).headers
    const request = { url: '/v1/devices/d0', headers: { 'if-none-match': String(etag) } }
    const [get, head] = [await on.api.inject(request), await on.api.inject({ ...request, method: 'HEAD' })]
    expect([get.statusCode, head.statusCode]).toEqual([304, 304])
    expect(told(head.headers)).toEqual(told(get.headers))
  })

  it('tells no length of a stream', async () => {
    for (const url of ['/v1/changes', '/v1/devices/d0/changes']) {
      const { statusCode, headers } = await on.api.inject({ method: 'HEAD', url })
      expect([statusCode, headers['content-type']]).toEqual([200, 'text/event-stream; charset=utf-8'])
      // As the stream itself has it.
      expect(headers['cache-control']).toBe('no-store')
      expect(headers).not.toHaveProperty('content-length')
    }
  })
})
