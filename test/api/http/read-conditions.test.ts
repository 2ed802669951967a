import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { ask } from '../conformance.ts'
import { Live } from '../live.ts'

let live: Live
beforeAll(async () => {
  live = await Live.open()
})
afterAll(() => live[Symbol.asyncDispose]())

describe.each(['', '/attributes'])('If-Match of GET /v1/devices/{deviceId}%s', (path) => {
  const read = async (url: string, headers: Record<string, string>) => ask(live.api, { url: url + path, headers })

  it('is met by the version that the device is at', async () => {
    const url = `/v1/devices/${await live.device()}`
    const { etag = '' } = (await read(url, {})).headers
    const { rev } = (await ask(live.api, url)).body
    for (const met of [etag, etag.slice(2), `"${rev}"`, `"7-x", ${etag}`, '*']) {
      expect((await read(url, { 'if-match': met })).status, met).toBe(200)
    }
  })

  it('is 412 when the device is at another, before If-None-Match is looked at', async () => {
    const url = `/v1/devices/${await live.device()}`
    const { etag = '' } = (await read(url, {})).headers
    const { rev } = (await ask(live.api, url)).body
    for (const unmet of [`"${rev + 1}"`, etag.replace('-2', '-1'), '"x"']) {
      const { status, headers, body } = await read(url, { 'if-match': unmet, 'if-none-match': etag })
      expect([status, headers.etag], unmet).toEqual([412, etag])
      expect(body.detail).toBe(`the device is at ${etag}`)
    }
  })

  it('is 400 when it is none, and 404 where there is no device', async () => {
    expect((await read(`/v1/devices/${await live.device()}`, { 'if-match': 'x' })).status).toBe(400)
    expect((await read('/v1/devices/nobody', { 'if-match': '*' })).status).toBe(404)
  })
})
