import { beforeEach, describe, expect, it } from 'vitest'
import { isCoded } from '../../../api/http/body.ts'
import { ask } from '../conformance.ts'
import { type Stage, stage } from '../stage.ts'

let on: Stage
beforeEach(async () => {
  on = await stage()
})

describe('the content coding of a request', () => {
  it('is refused before its body is read, and says how to send it', async () => {
    const attributes = '/v1/devices/a/attributes'
    // Over every limit, which would be said if it were read.
    const payload = ' '.repeat(1024 * 1024)
    for (const [method, url, coding] of [
      ['POST', '/v1/devices/batch-get', 'gzip'],
      ['PUT', attributes, 'bogus'],
      ['PATCH', attributes, 'identity, br'],
      ['DELETE', '/v1/devices/a', 'gzip'],
    ] as const) {
      const headers = { 'content-type': 'application/json', 'content-encoding': coding }
      const { status, headers: answered, body } = await ask(on.api, { method, url, headers, payload })
      expect([status, answered['accept-encoding']], url).toEqual([415, 'identity'])
      expect(body.errors).toMatchObject([{ field: 'content-encoding' }])
    }
  })

  it('is of no interest where there is no body, or where it says that there is none', async () => {
    on.fleet.put('a')
    const payload = '{"deviceIds":["a"]}'
    const json = { 'content-type': 'application/json', 'content-encoding': 'Identity' }
    const get = await ask(on.api, { url: '/v1/devices/a', headers: { 'content-encoding': 'gzip' } })
    const batch = await ask(on.api, { method: 'POST', url: '/v1/devices/batch-get', headers: json, payload })
    expect([get.status, batch.status]).toEqual([200, 200])
    const nowhere = { method: 'POST', url: '/nowhere', headers: { 'content-encoding': 'gzip' }, payload } as const
    expect((await ask(on.api, nowhere)).status).toBe(404)
  })
})

it('codings are read in one pass: four million blanks would take hours in a quadratic one', () => {
  const blanks = ' '.repeat(4 * 1024 * 1024)
  expect(isCoded({ 'content-length': '1', 'content-encoding': `${blanks}x` })).toBe(true)
  expect(isCoded({ 'content-length': '1', 'content-encoding': `,${blanks}Identity ,` })).toBe(false)
})
