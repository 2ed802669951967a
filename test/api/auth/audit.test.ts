import { expect, it } from 'vitest'
import type { Audit } from '../../../processor/runtime/audit.ts'
import { CLAIMS, get, guarded, signed } from './guarded.ts'

it('tells of writes and of callers that are refused, and not of reads', async () => {
  const told: unknown[] = []
  const audit: Audit = (event, facts) => told.push([event, facts])
  const on = await guarded({}, { audit })
  on.fleet.put('a')
  const token = signed(CLAIMS)
  await get(on, token)
  const headers = { authorization: `Bearer ${token}`, 'x-request-id': 'one' }
  await on.api.inject({ method: 'DELETE', url: '/v1/devices/a?x=secret', headers })
  await on.api.inject({ url: '/v1/devices/a', headers: { authorization: 'Bearer forged', 'x-request-id': 'two' } })
  const facts = { path: '/v1/devices/a', address: '127.0.0.1', status: expect.any(Number) as number }
  expect(told).toEqual([
    ['write', { ...facts, method: 'DELETE', name: 'ops', request: 'one' }],
    ['refuse', { ...facts, method: 'GET', name: undefined, request: 'two', status: 401 }],
  ])
  expect(JSON.stringify(told)).not.toMatch(new RegExp(`${token}|forged|secret`))
})
