import { expect, it, vi } from 'vitest'
import { sliceOf } from '../../../processor/contract/query.ts'
import { ask } from '../conformance.ts'
import { Fleet } from '../fleet.ts'
import { routed, stage } from '../stage.ts'

/** An application for which this is stored of every device. */
async function over(stored: string) {
  const reader = routed(new Fleet(1, ['a']))
  const freshness = { partition: 0, offset: 1, changelog: 1, lag: 0, servedBy: 'owner' as const }
  vi.spyOn(reader, 'get').mockResolvedValue({ status: sliceOf(Buffer.from(stored)), freshness })
  return (await stage({ reader })).api
}

it('attributes that another program nested so deep that JSON.stringify fails at them are none', async () => {
  const deep = '['.repeat(20_000) + ']'.repeat(20_000)
  const api = await over(`{"deviceId":"d","rev":1,"firstSeenAt":"2026-11-24T10:00:00.000Z","attributes":{"x":${deep}}}`)
  const told = await ask(api, '/v1/devices/d/attributes')
  expect([told.status, told.body]).toEqual([200, {}])
})

const AT = '2026-11-24T10:00:00.000Z'

it.each([
  ['{"deviceId":"d"}'],
  ['{"deviceId":"d","rev":1,"firstSeenAt":5}'],
  ['{"deviceId":"d","rev":1,"firstSeenAt":"yesterday, or the day before"}'],
  ['{"deviceId":"d","rev":1,"firstSeenAt":"ab\\r\\nc"}'],
  [`{"deviceId":"d","reported":{},"firstSeenAt":"${AT}"}`],
])('%s, which is no status, has an ETag that is its own', async (stored) => {
  const api = await over(stored)
  // The document of the API promises times for texts that a stranger need not write.
  const told = await api.inject('/v1/devices/d')
  expect([told.statusCode, told.json()]).toEqual([200, expect.objectContaining(JSON.parse(stored))])
  const { etag } = told.headers as { etag: string }
  const again = async (headers: Record<string, string>) =>
    (await api.inject({ url: '/v1/devices/d', headers })).statusCode
  expect([await again({ 'if-none-match': etag }), await again({ 'if-match': etag })]).toEqual([304, 200])
  const other = await (await over(`{"deviceId":"d","rev":2,"firstSeenAt":"${AT}"}`)).inject('/v1/devices/d')
  expect(other.headers.etag).toBe(`W/"2-${AT}"`)
  expect(etag).not.toBe(other.headers.etag)
})
