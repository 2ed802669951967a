import { expect, it } from 'vitest'
import { RetryableError, StoreCorruptedError } from '../../../processor/contract/errors.ts'
import type { StateStore } from '../../../processor/store/store.ts'
import { MemoryLog } from '../memory-log.ts'
import { said, statusOf, Workbench } from '../workbench.ts'

const fail = () => Promise.reject(new RetryableError('STORE_UNAVAILABLE', 'bad disk'))

/** The store, with some of its operations replaced. */
function altered(store: StateStore, methods: Partial<StateStore>): StateStore {
  return new Proxy(store, {
    get(target, name) {
      if (name in methods) return Reflect.get(methods, name)
      const value = Reflect.get(target, name, target) as unknown
      return typeof value === 'function' ? value.bind(target) : value
    },
  })
}

it('tries a failed write of the store again, and skips nothing', async () => {
  const log = new MemoryLog()
  await using bench = await Workbench.open(log)
  const store = await bench.store()
  let failures = 0
  const commit: StateStore['commit'] = async (...args) => {
    if (args[0].size > 0 && failures++ < 5) throw new RetryableError('STORE_UNAVAILABLE', 'no space')
    return store.commit(...args)
  }
  await log.append('telemetry', [said('a', { x: 1 })])
  await bench.task(log.claim(), altered(store, { commit }))
  await log.append('telemetry', [said('a', { x: 2 })])
  await bench.settled()
  expect(failures).toBeGreaterThan(5)
  expect(statusOf((await bench.reader.getMany(0, ['a']))[0]).rev).toBe(2)
  expect(bench.lines.filter((line) => line.includes('trying again'))).toHaveLength(1)
})

it('ends at once when told to while the store fails, and goes on from the log', async () => {
  const log = new MemoryLog()
  await using bench = await Workbench.open(log)
  const store = await bench.store()
  const failing = Promise.withResolvers<void>()
  const commit: StateStore['commit'] = async (...args) => {
    if (args[0].size === 0) return store.commit(...args)
    failing.resolve()
    throw new RetryableError('STORE_UNAVAILABLE', 'no space')
  }
  await log.append('telemetry', [said('a', { x: 1 })])
  const first = await bench.task(log.claim(), altered(store, { commit }))
  await failing.promise
  await first.stop()
  expect(log.records('status')).toHaveLength(1)
  expect(store.checkpoint).toMatchObject({ changelog: 0 })
  await bench.task()
  await bench.settled()
  expect(statusOf((await bench.reader.getMany(0, ['a']))[0]).rev).toBe(1)
})

it('wipes and restores a damaged store, once', async () => {
  const log = new MemoryLog()
  await using bench = await Workbench.open(log)
  const store = await bench.store()
  await log.append('telemetry', [said('a', { x: 1 })])
  await (await bench.task()).stop()
  let damaged = 1
  const getMany: StateStore['getMany'] = async (keys) => {
    if (damaged-- > 0) throw new StoreCorruptedError('bad block')
    return store.getMany(keys)
  }
  await log.append('telemetry', [said('a', { x: 2 }), said('b', { x: 1 })])
  await bench.task(log.claim(), altered(store, { getMany }))
  await bench.settled()
  expect(statusOf((await bench.reader.getMany(0, ['a']))[0]).rev).toBe(2)
  expect(bench.lines.join()).toContain('store wiped: it is damaged')

  damaged = Number.POSITIVE_INFINITY
  await log.append('telemetry', [said('c', { x: 2 })])
  const last = await bench.task(log.claim(), altered(store, { getMany }))
  await expect(last.done).rejects.toBeInstanceOf(StoreCorruptedError)
})

it('begins a batch again, from what is committed, when the store cannot be read in the midst of it', async () => {
  const log = new MemoryLog()
  await using bench = await Workbench.open(log)
  const store = await bench.store()
  const half = 'x'.repeat(200_000)
  await log.append('telemetry', [said('a', { a: half }), said('b', { y: 1 })])
  const first = await bench.task(log.claim(), store)
  await bench.settled()
  await first.stop()
  let reads = 0
  const getMany: StateStore['getMany'] = async (keys) => {
    // The second read is that of a status grown too large: the batch has been folded by then.
    if (++reads === 2) throw new RetryableError('STORE_UNAVAILABLE', 'bad disk')
    return store.getMany(keys)
  }
  await log.append('telemetry', [said('b', { y: 2 }), said('a', { b: half }), said('a', { c: half })])
  await bench.task(log.claim(), altered(store, { getMany }))
  await bench.settled()
  const [a, b] = await bench.reader.getMany(0, ['a', 'b'])
  expect(statusOf(a).rev).toBe(2)
  expect(statusOf(b).counters.messages).toBe(2)
  expect(reads).toBeGreaterThan(2)
})

it('tells readers to ask again when the store cannot be read', async () => {
  const log = new MemoryLog()
  await using bench = await Workbench.open(log)
  const store = await bench.store()
  await bench.task(log.claim(), altered(store, { getMany: fail, range: fail }))
  await bench.settled()
  await expect(bench.reader.getMany(0, ['a'])).rejects.toMatchObject({
    code: 'STORE_UNAVAILABLE',
    retryAfterSeconds: 1,
  })
  await expect(bench.reader.list(0, undefined, 5)).rejects.toMatchObject({ code: 'STORE_UNAVAILABLE' })
})
