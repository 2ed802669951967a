import { Registry } from 'prom-client'
import { expect, it } from 'vitest'
import { UnavailableError } from '../../processor/contract/errors.ts'
import { ask } from './conformance.ts'
import { Fleet } from './fleet.ts'
import { routed, stage } from './stage.ts'

const BATCH = { method: 'POST', url: '/v1/devices/batch-get', payload: { deviceIds: ['a'] } } as const

it.each([
  { bound: 'maxManyReads', kind: 'many', first: '/v1/partitions', second: BATCH },
  { bound: 'maxSearches', kind: 'search', first: '/v1/devices', second: '/v1/fleet/summary' },
])(
  'refuses what would be more than $bound, and takes it when one has ended',
  async ({ bound, kind, first, second }) => {
    const registry = new Registry()
    const { fleet, api } = await stage({ registry, limits: { [bound]: 1 } })
    const held = Promise.withResolvers<void>()
    for (const member of fleet.members.values()) member.fault = () => held.promise
    const under = api.inject(first)
    const metric = registry.getSingleMetric('tidemark_http_reads_in_flight')
    await expect
      .poll(async () => (await metric?.get())?.values.find(({ labels }) => labels.kind === kind)?.value)
      .toBe(1)
    const refused = await ask(api, second)
    expect(refused).toMatchObject({ status: 503, headers: { 'retry-after': '1' } })
    expect(refused.body.type).toBe('urn:tidemark:problem:overloaded')
    // One device is not one of many.
    const single = api.inject('/v1/devices/a')
    held.resolve()
    expect([(await under).statusCode, (await single).statusCode]).toEqual([200, 404])
    expect((await ask(api, second)).status).toBe(200)
  },
)

/** The body of a batch, of so many bytes. */
function bodyOf(bytes: number): string {
  return JSON.stringify({ deviceIds: ['a'.repeat(bytes - '{"deviceIds":[""]}'.length)] })
}

it('refuses the body of a batch of more than maxBodyBytes with 413', async () => {
  const { api } = await stage({ limits: { maxBodyBytes: 100 } })
  const post = (payload: string) => ask(api, { ...BATCH, payload, headers: { 'content-type': 'application/json' } })
  const [fits, over] = [await post(bodyOf(100)), await post(bodyOf(101))]
  expect([fits.status, over.status]).toEqual([200, 413])
  expect(over.body.errors).toEqual([{ field: 'body', message: 'has more than the 100 bytes that are allowed' }])
})

it.each([
  { attempts: 2, asked: 3, answered: false },
  { attempts: 3, asked: 4, answered: true },
])('asks by $attempts new owner maps while no copy can answer', async ({ attempts, asked, answered }) => {
  const fleet = new Fleet(1, ['a'])
  const a = fleet.member('a')
  let failures = 0
  a.fault = () =>
    ++failures <= 3
      ? Promise.reject(new UnavailableError('PARTITION_UNAVAILABLE', 'being restored'))
      : Promise.resolve()
  const reader = routed(fleet, { attempts })
  const answer = await reader.get('truck-17').then(
    () => true,
    () => false,
  )
  expect([answer, a.asked, fleet.ownersLoaded]).toEqual([answered, asked, attempts + 1])
})
