import { expect, it, vi } from 'vitest'
import { FencedError, RetryableError } from '../../../processor/contract/errors.ts'
import { bufferOf } from '../../../processor/contract/query.ts'
import { MAX_STATUS_BYTES } from '../../../processor/contract/status.ts'
import { MemoryLog } from '../memory-log.ts'
import { RECEIVED, said, statusOf, Workbench } from '../workbench.ts'

const counter = async (bench: Workbench, name: string) => (await bench.registry.getSingleMetric(name)?.get())?.values

it('makes one changelog record per device and batch, the last with the input offset and the number of devices', async () => {
  const log = new MemoryLog()
  await using bench = await Workbench.open(log)
  await log.append('telemetry', [said('a', { x: 1 }), said('b', { x: 2 }), said('a', { x: 3 })])
  await bench.task()
  await bench.settled()
  const changelog = log.records('status')
  expect(changelog.map(({ key }) => key)).toEqual(['a', 'b'])
  expect(changelog.map(({ headers }) => headers)).toEqual([undefined, { input: '3', devices: '2' }])
  const answers = await bench.reader.getMany(0, ['b', 'nobody', 'a'])
  expect(answers[1]?.status).toBeUndefined()
  expect(statusOf(answers[2])).toMatchObject({ rev: 2, reported: { x: { value: 3 } }, counters: { messages: 2 } })
  expect(answers[0]?.freshness).toEqual({ partition: 0, offset: 3, changelog: 2, lag: 0, servedBy: 'owner' })
  expect(await bench.reader.copies()).toEqual([
    {
      partition: 0,
      instance: 'one',
      role: 'owner',
      state: 'running',
      readable: true,
      offset: 3,
      changelogOffset: 2,
      lag: 0,
      devices: 2,
    },
  ])
})

it('commits bad records as dead letters beside the good ones, and counts them by reason', async () => {
  const log = new MemoryLog()
  await using bench = await Workbench.open(log)
  await log.append('telemetry', [said('a', 'no json'), said('a', { x: 1 }), said('a', { '': 1 }), said(null, { x: 1 })])
  await bench.task()
  await bench.settled()
  expect(log.commits).toBe(1)
  expect(
    log
      .records('dead-letters')
      .map(({ headers, value }) => [headers?.reason, headers?.offset, Buffer.from(value ?? []).toString()]),
  ).toEqual([
    ['not-json', '0', 'no json'],
    ['bad-metric-name', '2', '{"":1}'],
    ['bad-device-id', '3', '{"x":1}'],
  ])
  expect(statusOf((await bench.reader.getMany(0, ['a']))[0]).counters.messages).toBe(1)
  const counts = await counter(bench, 'tidemark_dead_letters_total')
  expect(counts?.map(({ labels, value }) => [labels.reason, value])).toContainEqual(['not-json', 1])
})

it('stamps the changelog with the time of the last record that was accepted', async () => {
  const log = new MemoryLog()
  await using bench = await Workbench.open(log)
  const times = [RECEIVED + 1, RECEIVED + 2, 2 ** 63]
  await log.append(
    'telemetry',
    times.map((timestamp) => said('a', { x: timestamp }, timestamp)),
  )
  await bench.task()
  await bench.settled()
  expect(log.records('status').map(({ timestamp }) => timestamp)).toEqual([RECEIVED + 2])
  expect(log.records('dead-letters').map(({ timestamp, headers }) => [timestamp, headers?.reason])).toEqual([
    [-1, 'bad-timestamp'],
  ])
})

it('writes no changelog record for a device that did not change', async () => {
  const log = new MemoryLog()
  await using bench = await Workbench.open(log)
  const will = { ...said('a', { x: 'gone' }), headers: { will: '0' } }
  const online = {
    ...said('a', { state: 'online', reason: 'connected', session: 2 }),
    headers: { kind: 'connectivity' },
  }
  await log.append('telemetry', [said('a', { x: 1 }), online])
  await bench.task()
  await bench.settled()
  await log.append('telemetry', [will, { ...online, key: 'never-reported' }])
  await bench.settled()
  expect(log.records('status')).toHaveLength(1)
  expect((await bench.store()).count).toBe(1)
})

it('writes nothing more once it is fenced', async () => {
  const log = new MemoryLog()
  await using bench = await Workbench.open(log)
  const first = await bench.task()
  await log.append('telemetry', [said('a', { x: 1 })])
  await bench.settled()
  log.claim()
  await log.append('telemetry', [said('a', { x: 2 })])
  await expect(first.done).rejects.toBeInstanceOf(FencedError)
  expect(first.role.state).toBe('closed')
  expect(log.records('status')).toHaveLength(1)
  expect((await bench.store()).checkpoint).toMatchObject({ input: 1, changelog: 1 })
  expect(await counter(bench, 'tidemark_fenced_claims_total')).toMatchObject([{ value: 1 }])
})

it('applies a batch once when the outcome of its commit is lost', async () => {
  const log = new MemoryLog()
  await using bench = await Workbench.open(log)
  log.loseOutcome = true
  await log.append('telemetry', [said('a', { x: 1 }), said('a', { x: 2 })])
  const first = await bench.task()
  await expect(first.done).rejects.toBeInstanceOf(RetryableError)
  expect((await bench.store()).checkpoint).toMatchObject({ changelog: 0 })
  log.loseOutcome = false
  await log.append('telemetry', [said('a', { x: 3 })])
  await bench.task()
  await bench.settled()
  expect(statusOf((await bench.reader.getMany(0, ['a']))[0]).counters).toEqual({
    messages: 3,
    late: 0,
    duplicates: 0,
    skewed: 0,
  })
})

it('shows nothing that is not committed', async () => {
  const log = new MemoryLog()
  await using bench = await Workbench.open(log)
  await bench.task()
  await log.append('telemetry', [said('a', { x: 1 })])
  await bench.settled()
  const { reached, letGo } = log.holdCommits()
  await log.append('telemetry', [said('a', { x: 2 }), said('b', { x: 2 })])
  await reached
  const [a, b] = await bench.reader.getMany(0, ['a', 'b'])
  expect(statusOf(a).rev).toBe(1)
  expect(b?.status).toBeUndefined()
  expect(a?.freshness).toMatchObject({ offset: 1, lag: 2 })
  letGo()
  await bench.settled()
  expect(statusOf((await bench.reader.getMany(0, ['a']))[0]).rev).toBe(2)
})

it('answers as a standby does while a commit takes long: it may have been made, and standbys may be ahead', async () => {
  const log = new MemoryLog()
  await using bench = await Workbench.open(log)
  await bench.task()
  await log.append('telemetry', [said('a', { x: 1 })])
  await bench.settled()
  const servedBy = async () => (await bench.reader.getMany(0, ['a']))[0]?.freshness.servedBy
  const { reached, letGo } = log.holdCommits()
  await log.append('telemetry', [said('a', { x: 2 })])
  await reached
  bench.now += 99
  expect(await servedBy()).toBe('owner')
  bench.now += 1
  expect(await servedBy()).toBe('standby')
  letGo()
  await bench.settled()
  expect(await servedBy()).toBe('owner')
})

it('answers as a standby does while the group does not confirm its claim: another may own the partition', async () => {
  const log = new MemoryLog()
  await using bench = await Workbench.open(log)
  const claim = { ...log.claim(), held: true }
  await bench.task(claim)
  await log.append('telemetry', [said('a', { x: 1 })])
  await bench.settled()
  const servedBy = async () => (await bench.reader.getMany(0, ['a']))[0]?.freshness.servedBy
  expect(await servedBy()).toBe('owner')
  claim.held = false
  expect(await servedBy()).toBe('standby')
})

it('shows nothing of the time before another had the partition', async () => {
  const log = new MemoryLog()
  await using bench = await Workbench.open(log)
  await using other = await Workbench.open(log)
  const first = await bench.task()
  await log.append('telemetry', [said('a', { x: 1 }), said('b', { x: 1 })])
  await bench.settled()
  await bench.reader.getMany(0, ['a', 'b'])
  await first.stop()
  const second = await other.task()
  await log.append('telemetry', [said('a', { x: 2 })])
  await other.settled()
  await second.stop()
  await bench.task()
  await bench.settled()
  const [a, b] = await bench.reader.getMany(0, ['a', 'b'])
  expect([statusOf(a).rev, statusOf(b).rev]).toEqual([2, 1])
})

it('answers for each device by itself', async () => {
  const log = new MemoryLog()
  await using bench = await Workbench.open(log, { cacheEntries: 1 })
  await bench.task()
  await log.append('telemetry', [said('a', { x: 1 }), said('b', { x: 1 })])
  await bench.settled()
  for (let i = 0; i < 2; i++) {
    const answers = await bench.reader.getEach(['b', 'far', 'nobody', 'a'], [0, 7, 0, 0])
    expect(answers[1]).toMatchObject({ code: 'NOT_OWNER' })
    const texts = answers.map((answer) => ('status' in answer ? answer.status && bufferOf(answer.status) : undefined))
    expect(texts.map((text) => text && JSON.parse(text.toString()).deviceId)).toEqual(['b', undefined, undefined, 'a'])
    expect(answers[3]).toMatchObject({ freshness: { offset: 2, servedBy: 'owner' } })
  }
})

it('leaves out exactly the records that would make a status too large', async () => {
  const log = new MemoryLog()
  await using bench = await Workbench.open(log)
  const half = 'x'.repeat(200_000)
  await log.append('telemetry', [said('a', { a: half })])
  await bench.task()
  await bench.settled()
  await log.append('telemetry', [
    said('a', { b: half }),
    said('a', { c: half }),
    said('b', { x: 1 }),
    said('a', { d: 1 }),
  ])
  await bench.settled()
  const [answer] = await bench.reader.getMany(0, ['a'])
  expect(answer?.status && bufferOf(answer.status).byteLength).toBeLessThanOrEqual(MAX_STATUS_BYTES)
  expect(Object.keys(statusOf(answer).reported as object)).toEqual(['a', 'b', 'd'])
  expect(statusOf(answer).rev).toBe(3)
  expect(log.records('dead-letters').map(({ headers }) => headers)).toEqual([
    { reason: 'status-too-large', partition: '0', offset: '2' },
  ])
  await log.append('telemetry', [said('a', { c: half })])
  await bench.settled()
  expect(log.records('dead-letters')).toHaveLength(2)
  expect(statusOf((await bench.reader.getMany(0, ['a']))[0]).rev).toBe(3)
})

it('leaves out a record that is too large for a new device', async () => {
  const log = new MemoryLog()
  await using bench = await Workbench.open(log)
  // 20,000 metrics of 11 bytes each, of which a status keeps the times too.
  const messages = Array.from({ length: 80 }, (_, i) => {
    return Object.fromEntries(Array.from({ length: 250 }, (__, k) => [`m${i * 250 + k}`, 1]))
  })
  await log.append('telemetry', [said('a', messages), said('b', { y: 1 }), said('c', messages), said('c', { z: 1 })])
  await bench.task()
  await bench.settled()
  const [a, b, c] = await bench.reader.getMany(0, ['a', 'b', 'c'])
  expect(a?.status).toBeUndefined()
  expect(statusOf(b).rev).toBe(1)
  expect(statusOf(c).rev).toBe(1)
  expect((await bench.store()).count).toBe(2)
  expect(log.records('dead-letters').map(({ key, headers }) => [key, headers?.reason])).toEqual([
    ['a', 'status-too-large'],
    ['c', 'status-too-large'],
  ])
})

it('takes no input that retention has removed, or that never was', async () => {
  const log = new MemoryLog()
  await using bench = await Workbench.open(log)
  const claim = log.claim()
  const far = { ...claim, start: { input: 5, changelogEnd: 0 } }
  await expect((await bench.task(far)).done).rejects.toMatchObject({ code: 'OFFSET_OUT_OF_RANGE' })
})

it('works through a long backlog in bounded batches, with a cache smaller than the fleet', async () => {
  const log = new MemoryLog()
  await using bench = await Workbench.open(log, { batchRecords: 64, cacheEntries: 10 })
  const records = Array.from({ length: 2000 }, (_, i) => said(`d${i % 50}`, { x: i }))
  await log.append('telemetry', records)
  await bench.task()
  await bench.settled()
  expect(log.commits).toBe(Math.ceil(2000 / 64))
  const answers = await bench.reader.getMany(
    0,
    Array.from({ length: 50 }, (_, i) => `d${i}`),
  )
  for (const answer of answers) expect(statusOf(answer).counters.messages).toBe(40)
  expect(bench.parts.statuses.size).toBeLessThanOrEqual(10)
  await vi.waitFor(async () =>
    expect(await counter(bench, 'tidemark_consumer_lag_records')).toMatchObject([{ value: 0 }]),
  )
})

it('refuses readers where it holds no copy', async () => {
  await using bench = await Workbench.open(new MemoryLog())
  await expect(bench.reader.getMany(0, ['a'])).rejects.toMatchObject({ code: 'NOT_OWNER' })
  await expect(bench.reader.list(0, undefined, 5)).rejects.toMatchObject({ code: 'NOT_OWNER' })
  expect(await bench.reader.copies()).toEqual([])
})

it('lists what it holds by device id', async () => {
  const log = new MemoryLog()
  await using bench = await Workbench.open(log)
  await log.append(
    'telemetry',
    ['c', 'a', 'b'].map((id) => said(id, { x: 1 })),
  )
  await bench.task()
  await bench.settled()
  const { items, freshness } = await bench.reader.list(0, 'a', 1)
  expect(items.map(({ deviceId }) => deviceId)).toEqual(['b'])
  expect(freshness).toMatchObject({ offset: 3, servedBy: 'owner' })
})
