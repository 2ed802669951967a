import { expect, it } from 'vitest'
import type { JsonObject } from '../../../processor/contract/json.ts'
import { type Write, writeRecord } from '../../../processor/contract/write.ts'
import type { NewRecord } from '../../../processor/log/log.ts'
import { MemoryLog } from '../memory-log.ts'
import { RECEIVED, said, statusOf, Workbench } from '../workbench.ts'

const set = (deviceId: string, attributes: JsonObject, ifMatch?: string[]): NewRecord => {
  return writeRecord(deviceId, { kind: 'attributes', operation: 'replace', attributes, ifMatch }, RECEIVED)
}
const deletion = (deviceId: string, ifMatch?: Write['ifMatch']) => {
  return writeRecord(deviceId, { kind: 'deletion', ifMatch }, RECEIVED)
}
const outcomes = async (bench: Workbench) =>
  (await bench.registry.getSingleMetric('tidemark_decided_writes_total')?.get())?.values.map(({ labels, value }) => [
    labels.outcome,
    value,
  ])

it('applies writes in the order of the log, and tells in the changelog what they came to', async () => {
  const log = new MemoryLog()
  await using bench = await Workbench.open(log)
  await log.append('telemetry', [
    said('a', { x: 1 }),
    set('a', { site: 'k1' }, ['1']),
    set('a', { site: 'k2' }, ['1']),
    said('a', { x: 2 }),
    set('a', { site: 'k3' }, ['3']),
  ])
  await bench.task()
  await bench.settled()
  const [a] = await bench.reader.getMany(0, ['a'])
  expect(statusOf(a)).toMatchObject({ rev: 4, attributes: { site: 'k3' }, reported: { x: { value: 2 } } })
  expect(log.records('status').map(({ headers }) => headers)).toEqual([
    { decided: '1:applied,2:stale,4:applied', input: '5', devices: '1' },
  ])
  expect(log.records('dead-letters')).toEqual([])
  expect(await outcomes(bench)).toEqual([
    ['applied', 2],
    ['stale', 1],
  ])
})

it('deletes a device from store, cache and count, with a tombstone in the changelog', async () => {
  const log = new MemoryLog()
  await using bench = await Workbench.open(log)
  await bench.task()
  await log.append('telemetry', [said('a', { x: 1 }), said('b', { x: 1 })])
  await bench.settled()
  await log.append('telemetry', [deletion('a')])
  await bench.settled()
  const [a, b] = await bench.reader.getMany(0, ['a', 'b'])
  expect(a?.status).toBeUndefined()
  expect(b?.status).toBeDefined()
  const store = await bench.store()
  expect([store.count, await store.recount()]).toEqual([1, 1])
  expect(bench.parts.statuses.size).toBe(1)
  const { key, value, headers } = log.records('status').at(-1) ?? {}
  expect([key, value, headers]).toEqual(['a', null, { decided: '2:applied', input: '3', devices: '1' }])
})

it('makes a deleted device anew, whether in another batch or in the same', async () => {
  for (const batchRecords of [1, 100]) {
    const log = new MemoryLog()
    await using bench = await Workbench.open(log, { batchRecords })
    await log.append('telemetry', [
      said('a', { x: 1 }, RECEIVED),
      said('b', { x: 1 }),
      deletion('a', ['1']),
      said('a', { y: 1 }, RECEIVED + 5),
      deletion('b'),
      said('b', { x: 2 }),
      deletion('b'),
      said('c', { x: 1 }),
      deletion('c'),
    ])
    await bench.task()
    await bench.settled()
    const [a, b, c] = await bench.reader.getMany(0, ['a', 'b', 'c'])
    expect(statusOf(a)).toMatchObject({ rev: 1, firstSeenAt: new Date(RECEIVED + 5).toISOString() })
    expect(Object.keys(statusOf(a).reported as object)).toEqual(['y'])
    expect([b?.status, c?.status]).toEqual([undefined, undefined])
    const store = await bench.store()
    expect([store.count, await store.recount()]).toEqual([1, 1])
    const standby = await (async () => {
      await using copy = await Workbench.open(log)
      await copy.standby()
      await copy.settled()
      const restored = await copy.store()
      return [restored.count, (await restored.range(undefined, 9)).map(([key]) => key)]
    })()
    expect(standby).toEqual([1, ['a']])
  }
})

it('shows the device until its deletion is stored', async () => {
  const log = new MemoryLog()
  await using bench = await Workbench.open(log)
  await bench.task()
  await log.append('telemetry', [said('a', { x: 1 })])
  await bench.settled()
  const { reached, letGo } = log.holdCommits()
  await log.append('telemetry', [deletion('a')])
  await reached
  expect(statusOf((await bench.reader.getMany(0, ['a']))[0]).rev).toBe(1)
  letGo()
  await bench.settled()
  expect((await bench.reader.getMany(0, ['a']))[0]?.status).toBeUndefined()
})

it('keeps as dead letters what was refused without a condition, and tells of the rest in the changelog only', async () => {
  const log = new MemoryLog()
  await using bench = await Workbench.open(log)
  await log.append('telemetry', [set('nobody', { a: 1 }), set('nobody', { a: 1 }, ['1']), deletion('nobody')])
  await bench.task()
  await bench.settled()
  expect(log.records('dead-letters').map(({ headers }) => headers)).toEqual([
    { kind: 'attributes', operation: 'replace', reason: 'unknown-device', partition: '0', offset: '0' },
  ])
  const { value, headers } = log.records('status')[0] ?? {}
  expect(value).toBeNull()
  expect(headers?.decided).toBe('0:unknown-device,1:unknown-device,2:unknown-device')
  expect((await bench.store()).count).toBe(0)
})

it('leaves out the write that would make a status too large, and keeps what else is in its batch', async () => {
  const log = new MemoryLog()
  await using bench = await Workbench.open(log)
  const part = 'x'.repeat(170_000)
  await log.append('telemetry', [
    ...['a', 'b', 'c'].map((name) => said('a', { [name]: part })),
    set('a', { site: 'k1' }),
    said('a', { d: 'z'.repeat(6_000) }),
    set('a', { note: 'y'.repeat(8_000) }, ['5']),
    set('a', { note: 'y'.repeat(8_000) }),
    said('a', { e: 1 }),
  ])
  await bench.task()
  await bench.settled()
  const [a] = await bench.reader.getMany(0, ['a'])
  expect(statusOf(a)).toMatchObject({ rev: 6, attributes: { site: 'k1' }, reported: { e: { value: 1 } } })
  expect(log.records('dead-letters').map(({ headers }) => [headers?.offset, headers?.reason])).toEqual([
    ['6', 'status-too-large'],
  ])
  const decided = '3:applied,5:status-too-large,6:status-too-large'
  expect(log.records('status').at(-1)?.headers?.decided).toBe(decided)

  await log.append('telemetry', [deletion('a'), ...['e', 'f', 'g', 'h'].map((name) => said('a', { [name]: part }))])
  await bench.settled()
  expect(Object.keys(statusOf((await bench.reader.getMany(0, ['a']))[0]).reported as object)).toEqual(['e', 'f', 'g'])
  expect(log.records('status').at(-1)?.headers?.decided).toBe('8:applied')
})
