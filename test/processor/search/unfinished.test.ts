import { expect, it, onTestFinished, vi } from 'vitest'
import { PendingScans } from '../../../processor/search/scan-threads.ts'

const LONG_MS = 60_000
const MAX_KEPT = 1_024
const KEPT_MS = 5_000

it('is found under way, and then done, by who asks again', async () => {
  const unfinished = new PendingScans<{ result: number }>()
  const { promise, resolve } = Promise.withResolvers<{ result: number }>()
  let begun = 0
  const begin = () => {
    begun++
    return promise
  }
  expect(await unfinished.within('a', begin, 0)).toBeUndefined()
  const again = unfinished.within('a', begin, LONG_MS)
  resolve({ result: 1 })
  expect(await again).toEqual({ result: 1 })
  expect(begun).toBe(1)
  await unfinished.within('a', begin, LONG_MS)
  expect(begun).toBe(2)
})

it('is begun anew after it failed, whether somebody waited or not', async () => {
  const unfinished = new PendingScans<object>()
  const failing = Promise.withResolvers<object>()
  expect(await unfinished.within('a', () => failing.promise, 0)).toBeUndefined()
  failing.reject(new Error('first'))
  await expect(unfinished.within('a', () => Promise.reject(new Error('second')), LONG_MS)).rejects.toThrow('first')
  await expect(unfinished.within('a', () => Promise.reject(new Error('second')), LONG_MS)).rejects.toThrow('second')
  expect(await unfinished.within('a', async () => ({}), LONG_MS)).toEqual({})
})

const never = () => new Promise<object>(() => {})

it('is bounded', async () => {
  const unfinished = new PendingScans<object>()
  const asked: Promise<object | undefined>[] = []
  for (let i = 0; i < MAX_KEPT; i++) asked.push(unfinished.within(`job ${i}`, never, 0))
  await expect(unfinished.within('one more', never, 0)).rejects.toMatchObject({ code: 'STORE_UNAVAILABLE' })
  await Promise.all(asked)
})

it('is kept for a while for who asks again, and then leaves its place to others', async () => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
  onTestFinished(() => void vi.useRealTimers())
  const unfinished = new PendingScans<object>()
  const { promise, resolve } = Promise.withResolvers<object>()
  const asked = ['a', 'b'].map((key) => unfinished.within(key, () => promise, 0))
  await vi.advanceTimersByTimeAsync(0)
  expect(await Promise.all(asked)).toEqual([undefined, undefined])
  resolve({})
  await vi.advanceTimersByTimeAsync(KEPT_MS - 1)
  expect(await unfinished.within('a', never, LONG_MS)).toEqual({})
  await vi.advanceTimersByTimeAsync(1)
  vi.useRealTimers()
  const others = Array.from({ length: MAX_KEPT }, (_, i) => unfinished.within(`job ${i}`, never, 0))
  expect(new Set(await Promise.all(others))).toEqual(new Set([undefined]))
})
