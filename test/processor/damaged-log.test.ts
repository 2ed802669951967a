import { expect, it } from 'vitest'
import { CorruptedError, RetryableError } from '../../processor/contract/errors.ts'
import type { Topic } from '../../processor/log/log.ts'
import { MemoryLog } from './memory-log.ts'
import { said, statusOf, Workbench } from './workbench.ts'

/** A log of which one topic cannot be read so many times, from the offset on. */
class DamagedLog extends MemoryLog {
  damaged: { topic: Topic; from: number; times: number; error?: Error } | undefined

  override async *follow(
    ...[of, from, limits, signal]: Parameters<MemoryLog['follow']>
  ): ReturnType<MemoryLog['follow']> {
    for await (const batch of super.follow(of, from, limits, signal)) {
      const { damaged } = this
      if (damaged?.topic === of.topic && batch.next > damaged.from && damaged.times-- > 0) {
        throw damaged.error ?? new CorruptedError('LOG_CORRUPTED', `${of.topic} ${of.index}: the CRC does not fit`)
      }
      yield batch
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
