import { beforeEach, describe, expect, it } from 'vitest'
import { etagOf, ifMatchOf } from '../../../api/http/conditions.ts'
import type { JsonObject } from '../../../processor/contract/json.ts'
import type { Status } from '../../../processor/contract/status.ts'
import { statusText } from '../../status-model.ts'
import { ask } from '../conformance.ts'
import { AT, statusOf } from '../fleet.ts'
import { type Stage, stage } from '../stage.ts'

let on: Stage
beforeEach(async () => {
  on = await stage()
})

const get = (match?: string) =>
  ask(on.api, { url: '/v1/devices/a', headers: match === undefined ? {} : { 'if-none-match': match } })

const textOf = (reported: Status['reported'], attributes: JsonObject): string =>
  statusText({
    ...statusOf('a', reported),
    rev: 42,
    sequence: { seen: [[1, 2]], session: 1, at: AT },
    attributes,
  })

describe('the entity tag', () => {
  it('is weak, of rev and of the life of the device', async () => {
    on.fleet.put('a')
    expect((await get()).headers.etag).toBe(`W/"1-${AT}"`)
  })

  it('is found whatever devices and people say', () => {
    const then = { x: {}, firstSeenAt: '2020-01-01T00:00:00.000Z' }
    const decoy = [{ rev: 7, x: {}, firstSeenAt: 'then' }, then, '","rev":7,', '},"firstSeenAt":"then"']
    const whole = { connectivity: { session: 1 }, ...then, lastSeenAt: AT, counters: { messages: 1 } }
    const texts = [
      textOf({ rev: { value: decoy, at: AT }, '","rev":7': { value: 1, at: AT } }, { rev: 7, firstSeenAt: 'then' }),
      textOf({}, {}),
      textOf({}, { owner: { name: 'x' }, firstSeenAt: '2020-01-01T00:00:00.000Z' }),
      textOf({ a: { value: [then], at: AT } }, { a: then, ...whole }),
      textOf({ a: { value: [whole], at: AT } }, {}),
    ]
    for (const text of texts) expect(etagOf(text.slice(0, -1))).toBe(`W/"42-${AT}"`)
  })

  it('is answered 304 without a body while it is the same, by weak comparison', async () => {
    on.fleet.put('a')
    const etag = `W/"1-${AT}"`
    for (const match of [etag, etag.slice(2), '*', ` "x", ${etag}`, `"a,b" , W/"c",${etag}`]) {
      const { status, headers, text } = await get(match)
      expect([status, headers.etag, text, headers['cache-control']], match).toEqual([304, etag, '', 'no-cache'])
      expect(headers).not.toHaveProperty('content-type')
    }
    for (const match of ['"1"', 'W/"2-x"', '', 'W/"1-', `"${AT}"`, '1', '**', '"*"']) {
      expect((await get(match)).status, match).toBe(200)
    }
    const head = { method: 'HEAD', url: '/v1/devices/a', headers: { 'if-none-match': etag } } as const
    expect((await on.api.inject(head)).statusCode).toBe(304)
    expect((await ask(on.api, { url: '/v1/devices/b', headers: { 'if-none-match': '*' } })).status).toBe(404)
  })
})

it('a list of ETags is read in one pass: four million blanks would take hours in a quadratic one', () => {
  const blanks = ' '.repeat(4 * 1024 * 1024)
  expect(() => ifMatchOf(`"a",${blanks}x`)).toThrow('must be * or a list of ETags')
  expect(() => ifMatchOf(`"a"${blanks}x`)).toThrow('must be * or a list of ETags')
  expect(ifMatchOf(`"a" ,${blanks}, W/"b"${blanks}`)).toEqual(['a', 'b'])
})
