import { expect, it } from 'vitest'
import { ask } from './conformance.ts'
import { stage } from './stage.ts'

const AT = '2026-11-24T10:00:00.000Z'

it('groups by fields, and tells of metrics, that have a comma in their names', async () => {
  const { api, fleet } = await stage()
  for (const [id, load] of [
    ['pump-1', 4],
    ['pump-2', 6],
  ] as const) {
    fleet.put(id, { 'load,mean': { value: load, at: AT }, 'a,b': { value: 'x', at: AT }, c: { value: 1, at: AT } })
  }
  const parameters = new URLSearchParams({ by: 'reported.a\\,b,reported.c', metric: 'reported.load\\,mean,reported.c' })
  const { status, body } = await ask(api, `/v1/fleet/summary?${parameters.toString()}`)
  expect(status).toBe(200)
  const groups = [
    {
      by: { 'reported.a,b': 'x', 'reported.c': 1 },
      count: 2,
      metrics: { 'reported.load,mean': { min: 4, max: 6, mean: 5 }, 'reported.c': { count: 2 } },
    },
  ]
  expect(body).toMatchObject({ groups })
  await api.close()
})
