import { pino } from 'pino'
import { Registry } from 'prom-client'
import { expect, it } from 'vitest'
import { type PartitionReader, sliceOf } from '../../../processor/contract/query.ts'
import { decodeOutcomes, encodeQuestions, READ_PATH } from '../../../processor/contract/query-wire.ts'
import type { Claim } from '../../../processor/log/log.ts'
import { ReadSize } from '../../../processor/partition/batch-devices.ts'
import { QueryServer } from '../../../processor/query/query-server.ts'
import { InFlight } from '../../../processor/runtime/limiter.ts'
import { MemoryLog } from '../memory-log.ts'
import { said, statusOf, Workbench } from '../workbench.ts'

const DEVICES = Array.from({ length: 20 }, (_, i) => `d${i}`)
const STATUS_BYTES = 10_000
/** Of one status, about. */
const LARGE = { list: Array.from({ length: 400 }, (_, i) => i), text: 'x'.repeat(500) }

/** A partition whose devices have large statuses. */
async function large(log: MemoryLog, cacheEntries: number): Promise<Workbench> {
  const bench = await Workbench.open(log, { statusBytes: STATUS_BYTES, cacheEntries })
  await bench.task()
  for (const id of DEVICES) await log.append('telemetry', [said(id, LARGE)])
  await bench.settled()
  return bench
}

it.each([
  { where: 'in the cache', cacheEntries: 1000 },
  { where: 'in the store', cacheEntries: 1 },
])('small messages of devices with large statuses $where are committed in parts', async ({ cacheEntries }) => {
  const log = new MemoryLog()
  await using bench = await large(log, cacheEntries)
  const [commits, written] = [log.commits, log.records('status').length]
  const all = DEVICES.flatMap((id, i) => [said(id, { n: 1 }), said(null, i), said('new', { i }), said('d0', { n: i })])
  await log.append('telemetry', all)
  await bench.settled()
  expect(log.commits - commits).toBeGreaterThan(3)
  let [bytes, most] = [0, 0]
  for (const { value, headers } of log.records('status').slice(written)) {
    bytes += value?.byteLength ?? 0
    most = Math.max(most, bytes)
    if (headers?.input !== undefined) bytes = 0
  }
  // The status that fills a part, and what is small.
  expect(most).toBeLessThan(STATUS_BYTES + 4000)
  expect(log.records('dead-letters')).toHaveLength(DEVICES.length)
  const answers = await bench.reader.getMany(0, [...DEVICES, 'new'])
  const messages = answers.map((answer) => statusOf(answer).counters.messages)
  expect(messages).toEqual([22, ...DEVICES.slice(1).map(() => 2), 20])
  expect((await bench.store()).count).toBe(DEVICES.length + 1)
})

it('what fills a commit counts as a full batch among those under way', async () => {
  const log = new MemoryLog()
  await using bench = await large(log, 1000)
  const weights: number[] = []
  class Watched extends InFlight {
    override run<T>(weight: number, signal: AbortSignal, work: () => Promise<T>): Promise<T> {
      weights.push(weight)
      return super.run(weight, signal, work)
    }
  }
  Object.assign(bench.parts, { inFlight: new Watched(1, bench.parts.clock.sleep) })
  const { batchRecords } = bench.parts.limits
  await log.append('telemetry', [said('d0', { n: 1 })])
  await bench.settled()
  await log.append('telemetry', [said('small', { n: 1 }), said('d1', { n: 1 })])
  await bench.settled()
  await log.append(
    'telemetry',
    DEVICES.map((id) => said(id, { n: 1 })),
  )
  await bench.settled()
  const [first = 0, second = 0, third = 0] = weights
  expect(first).toBe(1)
  expect(second).toBeGreaterThan(batchRecords / 4)
  expect(second).toBeLessThan(batchRecords)
  expect(third).toBe(batchRecords)
})

it('a commit holds no more than the log asks for, and tells when there is more of its batch', async () => {
  const log = new MemoryLog()
  await using bench = await Workbench.open(log)
  const commits: { readonly bytes: number; readonly isPart: boolean | undefined }[] = []
  const claim = log.claim()
  const watched: Claim = {
    ...claim,
    commitBytes: 3000,
    commit(work) {
      commits.push({
        bytes: work.changelog.reduce((sum, { value }) => sum + (value?.byteLength ?? 0), 0),
        isPart: work.isPart,
      })
      return claim.commit(work)
    },
  }
  const text = 'x'.repeat(600)
  await log.append(
    'telemetry',
    DEVICES.map((id) => said(id, { text })),
  )
  await log.append(
    'telemetry',
    DEVICES.map((id) => said(id, { n: 1 })),
  )
  await bench.task(watched)
  await bench.settled()
  expect(commits.length).toBeGreaterThan(5)
  expect(Math.max(...commits.map(({ bytes }) => bytes))).toBeLessThan(3 * 3000)
  expect(commits.filter(({ isPart }) => !isPart)).toEqual([commits.at(-1)])
  const answers = await bench.reader.getMany(0, DEVICES)
  expect(answers.map((answer) => statusOf(answer).counters.messages)).toEqual(DEVICES.map(() => 2))
})

const checks = async () => []

it.each([
  { mib: 6, given: [true, true, false] },
  { mib: 17, given: [true, false, false] },
])('of three answers of $mib MiB a processor gives as many as fit, or one, and puts off the others', async (one) => {
  const logger = pino({ enabled: false })
  const registry = new Registry()
  await using server = await QueryServer.open({
    host: '127.0.0.1',
    port: 0,
    secret: undefined,
    checks,
    registry,
    logger,
  })
  const freshness = { partition: 0, offset: 1, changelog: 1, lag: 0, servedBy: 'owner' }
  const getMany = async () => [{ status: sliceOf(Buffer.alloc(one.mib * 1024 * 1024)), freshness }]
  server.serve({ getMany } as unknown as PartitionReader)
  const questions = [0, 1, 2].map((partition) => ({ partition, deviceIds: ['d0'] }))
  const body = encodeQuestions(questions)
  const response = await fetch(`http://${server.address}${READ_PATH}`, { method: 'POST', body })
  const outcomes = decodeOutcomes(Buffer.from(await response.arrayBuffer()), questions)
  expect(outcomes.map((outcome) => Array.isArray(outcome))).toEqual(one.given)
  expect(outcomes[2]).toMatchObject({ message: expect.stringContaining('ask again') })
})

it('a task reads fewer statuses at a time when they are large', () => {
  const reads = new ReadSize()
  expect(reads.keys).toBe(64)
  reads.learn([undefined, Buffer.alloc(200)])
  expect(reads.keys).toBe(512)
  reads.learn([undefined, Buffer.alloc(400_000)])
  expect(reads.keys).toBe(20)
  reads.learn([Buffer.alloc(5_000_000)])
  expect(reads.keys).toBe(1)
  reads.learn([undefined])
  expect(reads.keys).toBe(512)
})
