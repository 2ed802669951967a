import { RocksLevel } from 'rocksdb-level'
import { expect, it, vi } from 'vitest'
import {
  LogCorruptedError,
  OffsetOutOfRangeError,
  RetryableError,
  StoreCorruptedError,
} from '../../../processor/contract/errors.ts'
import { storageKey } from '../../../processor/log/embedded/storage.ts'
import { CRC_AT } from '../../../processor/log/kafka/protocol/record-batch.ts'
import { FetchedRecords } from '../../../processor/log/kafka/protocol/records.ts'
import type { Topic } from '../../../processor/log/log.ts'
import { read } from '../../contract/log-member.ts'
import { LIMITS, numbered, record } from '../../contract/log-records.ts'
import { batch } from '../../kafka/batches.ts'
import { folder, openLog } from '../log/embedded/folder.ts'
import { MemoryLog } from '../memory-log.ts'
import { said, statusOf, Workbench } from '../workbench.ts'

/** A log of which one topic cannot be read so many times, from the offset on. */
class DamagedLog extends MemoryLog {
  damaged: { topic: Topic; from: number; times: number; error?: Error } | undefined

  override async *follow(
    ...[of, from, limits, signal]: Parameters<MemoryLog['follow']>
  ): ReturnType<MemoryLog['follow']> {
    for await (const given of super.follow(of, from, limits, signal)) {
      const { damaged } = this
      if (damaged?.topic === of.topic && given.next > damaged.from && damaged.times-- > 0) {
        throw damaged.error ?? new LogCorruptedError(`${of.topic} ${of.index}: the CRC does not fit`)
      }
      yield given
    }
  }
}

it('an owner reads a damaged batch of the input again, and keeps its store', async () => {
  const log = new DamagedLog()
  await using bench = await Workbench.open(log)
  await log.append('telemetry', [said('a', { x: 1 })])
  await bench.task()
  await bench.settled()
  log.damaged = { topic: 'telemetry', from: 1, times: 3 }
  await log.append('telemetry', [said('a', { x: 2 }), said('b', { x: 1 })])
  await bench.settled()
  const [a, b] = await bench.reader.getMany(0, ['a', 'b'])
  expect(statusOf(a).counters.messages).toBe(2)
  expect(statusOf(b).counters.messages).toBe(1)
  expect(log.damaged.times).toBeLessThan(1)
  const lines = bench.lines.join()
  expect(lines).toContain('the log is damaged: trying again')
  expect(lines).not.toContain('store wiped')
})

it('an owner reads the input again when it could not be read, and keeps its claim', async () => {
  const log = new DamagedLog()
  await using bench = await Workbench.open(log)
  await log.append('telemetry', [said('a', { x: 1 })])
  const { role } = await bench.task()
  await bench.settled()
  const error = new RetryableError('LOG_UNAVAILABLE', 'too many open files')
  log.damaged = { topic: 'telemetry', from: 1, times: 3, error }
  await log.append('telemetry', [said('a', { x: 2 })])
  await bench.settled()
  expect(bench.roles.get(0)).toBe(role)
  expect(statusOf((await bench.reader.getMany(0, ['a']))[0]).counters.messages).toBe(2)
  expect(log.damaged.times).toBeLessThan(1)
  expect(bench.lines.join()).toContain('the log cannot be read: trying again')
})

it('an owner and a standby read a damaged changelog again', async () => {
  const log = new DamagedLog()
  {
    await using bench = await Workbench.open(log)
    await log.append('telemetry', [said('a', { x: 1 }), said('b', { x: 1 })])
    await bench.task()
    await bench.settled()
  }
  for (const role of ['task', 'standby'] as const) {
    log.damaged = { topic: 'status', from: 0, times: 2 }
    await using bench = await Workbench.open(log)
    await bench[role]()
    await bench.settled()
    expect(statusOf((await bench.reader.getMany(0, ['b']))[0]).counters.messages).toBe(1)
    expect(log.damaged.times).toBeLessThan(1)
    expect(bench.lines.join()).not.toContain('store wiped')
  }
})

/** What an embedded log says whose database has bytes that are no batch, in a segment that a start does not read. */
async function damageOfEmbedded(): Promise<unknown> {
  const path = await folder()
  const segments = { segmentBytes: 100, tailRecords: 5 }
  const whole = await openLog(path, segments)
  for (let from = 0; from < 30; from += 10) await whole.append('telemetry', numbered(from, 10))
  await whole[Symbol.asyncDispose]()
  const db = new RocksLevel<Buffer, Buffer>(path, { keyEncoding: 'buffer', valueEncoding: 'buffer' })
  await db.put(storageKey('batch', 'telemetry', 0, 10), Buffer.from('no batch'))
  await db.close()
  const log = await openLog(path, segments)
  return read(log, 'telemetry', 0, 0, 30).catch((error: unknown) => error)
}

/** What Kafka's adapter says of a batch whose CRC does not fit. */
async function damageOfKafka(): Promise<unknown> {
  const bytes = batch([record('a', 'first')], 0)
  bytes.writeUInt8(bytes.readUInt8(CRC_AT) ^ 1, CRC_AT)
  const reading = async () => new FetchedRecords('fleet.status 0', bytes, [], 0).read(LIMITS, [], 0)
  return reading().catch((error: unknown) => error)
}

type Failing = () => Promise<unknown>
const FAILURES: [string, number, Failing, Function][] = [
  ['a damaged embedded log', 0, damageOfEmbedded, LogCorruptedError],
  ['a damaged log of Kafka', 0, damageOfKafka, LogCorruptedError],
  ['a damaged store', 1, async () => new StoreCorruptedError('bad block'), StoreCorruptedError],
  ['a changelog that has less', 1, async () => new OffsetOutOfRangeError('3 is past the end'), OffsetOutOfRangeError],
]
const EACH = FAILURES.flatMap(([what, ...of]) => {
  return (['task', 'standby'] as const).map((role) => [what, role, ...of] as const)
})

it.each(EACH)('%s has a %s that restores wipe its copy %i times', async (_, role, wipes, fails, kind) => {
  const log = new DamagedLog()
  await using bench = await Workbench.open(log)
  await using other = await Workbench.open(log)
  await log.append('telemetry', [said('a', { x: 1 })])
  const first = await bench.task()
  await bench.settled()
  await first.stop()
  await log.append('telemetry', [said('b', { x: 1 })])
  const second = await other.task()
  await other.settled()
  await second.stop()
  const error = await fails()
  expect(error).toBeInstanceOf(kind)
  log.damaged = { topic: 'status', from: first.role.store.checkpoint?.changelog ?? 0, times: 1, error: error as Error }
  const wipe = vi.spyOn(first.role.store, 'wipe')
  await bench[role]()
  await bench.settled()
  expect(log.damaged.times).toBeLessThan(1)
  expect(wipe).toHaveBeenCalledTimes(wipes)
  expect((await bench.reader.getMany(0, ['a', 'b'])).map((answer) => statusOf(answer).rev)).toEqual([1, 1])
})
