import { afterEach, beforeEach, expect, it, vi } from 'vitest'
import { Limiter } from '../../../processor/runtime/limiter.ts'

const PATIENCE_MS = 1_000
const over = () => new Error('over')

beforeEach(() => void vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] }))
afterEach(() => void vi.useRealTimers())

it('gives a place that is free again to the first that waits', async () => {
  const limiter = new Limiter(1)
  const leave = await limiter.enter()
  const order: string[] = []
  void limiter.run(async () => void order.push('first'))
  const second = limiter.run(async () => void order.push('second'))
  await vi.advanceTimersByTimeAsync(PATIENCE_MS)
  expect(order).toEqual([])
  expect(limiter.underWay).toBe(1)
  leave()
  await second
  expect(order).toEqual(['first', 'second'])
  await vi.advanceTimersByTimeAsync(0)
  expect(limiter.underWay).toBe(0)
})

it('keeps no place for work that has waited too long', async () => {
  const limiter = new Limiter(1, { ms: PATIENCE_MS, over })
  const leave = await limiter.enter()
  const impatient = expect(limiter.enter()).rejects.toThrow('over')
  await vi.advanceTimersByTimeAsync(PATIENCE_MS)
  await impatient
  leave()
  expect(limiter.underWay).toBe(0)
  await limiter.enter()
})

it('refuses work at once where it has no patience, and takes it again when there is a place', async () => {
  const limiter = new Limiter(1, { ms: 0, over })
  const leave = await limiter.enter()
  await expect(limiter.run(async () => 1)).rejects.toThrow('over')
  leave()
  expect(await limiter.run(async () => 2)).toBe(2)
})

it('goes on after work that failed', async () => {
  const limiter = new Limiter(1)
  await expect(limiter.run(() => Promise.reject(new Error('broken')))).rejects.toThrow('broken')
  expect(await limiter.run(async () => 2)).toBe(2)
})
