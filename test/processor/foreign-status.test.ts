import { expect, it } from 'vitest'
import { MemoryLog } from './memory-log.ts'
import { RECEIVED, said, statusOf, Workbench } from './workbench.ts'

const STATUS = {
  deviceId: 'a',
  rev: 7,
  reported: { x: { value: [1], at: '2026-11-24T10:00:00.000Z' } },
  connectivity: { state: 'unknown', since: '2026-11-24T10:00:00.000Z', reason: 'no session seen', session: 0 },
  firstSeenAt: '2026-11-24T10:00:00.000Z',
  lastSeenAt: '2026-11-24T10:00:00.000Z',
  counters: { messages: 7, late: 0, duplicates: 0, skewed: 0 },
  sequence: { seen: [[1, 2]], session: 0 },
}

it.each([
  ['{}'],
  ['null'],
  ['[1]'],
  ['garbage'],
  [{ ...STATUS, deviceId: 'b' }],
  [{ ...STATUS, rev: '7' }],
  [{ ...STATUS, reported: { x: null } }],
  [{ ...STATUS, connectivity: { state: 'online' } }],
  [{ ...STATUS, counters: { messages: 7 } }],
  [{ ...STATUS, sequence: { seen: [3], session: 0 } }],
  [{ ...STATUS, attributes: 1 }],
])('a device of which another program wrote %j begins anew, and its partition goes on', async (written) => {
  const log = new MemoryLog()
  await using bench = await Workbench.open(log)
  const headers = { input: '0', devices: '3' }
  const changelog = [said('a', written), said('c', written), { ...said('d', { ...STATUS, deviceId: 'd' }), headers }]
  await log.claim().commit({ changelog, deadLetters: [], next: 0 })
  const online = { state: 'online', reason: 'connected', session: 2 }
  const connection = { ...said('c', online), headers: { kind: 'connectivity' } }
  await log.append('telemetry', [said('a', { x: 1, seq: 1 }), connection, said('d', { y: 1 })])
  await bench.task()
  await bench.settled()
  await log.append('telemetry', [said('a', { y: 1 }, RECEIVED + 1)])
  await bench.settled()
  const [a, c, d] = await bench.reader.getMany(0, ['a', 'c', 'd'])
  expect(statusOf(a)).toMatchObject({ deviceId: 'a', rev: 2, counters: { messages: 2 } })
  expect(c?.status).toBeUndefined()
  expect(statusOf(d)).toMatchObject({ rev: 8, counters: { messages: 8 } })
  const { store } = bench.roles.get(0) ?? {}
  expect(store?.count).toBe(2)
  expect(await store?.recount()).toBe(2)
  expect(bench.lines.filter((line) => line.includes('is no status'))).toHaveLength(1)
})
