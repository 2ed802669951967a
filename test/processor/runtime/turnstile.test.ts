import { afterEach, beforeEach, expect, it, vi } from 'vitest'
import { Turnstile } from '../../../processor/runtime/limiter.ts'

const PATIENCE_MS = 1_000
const patience = { ms: PATIENCE_MS, over: () => new Error('over') }

beforeEach(() => void vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] }))
afterEach(() => void vi.useRealTimers())

it('gives the place of who leaves to who still waits', async () => {
  const turnstile = new Turnstile(1)
  const leave = await turnstile.enter()
  const impatient = expect(turnstile.enter(patience)).rejects.toThrow('over')
  const patient = vi.fn()
  void turnstile.enter().then(patient)
  await vi.advanceTimersByTimeAsync(PATIENCE_MS)
  await impatient
  expect(patient).not.toHaveBeenCalled()
  leave()
  await vi.advanceTimersByTimeAsync(0)
  expect(patient).toHaveBeenCalled()
})

it('keeps no place for who has lost patience', async () => {
  const turnstile = new Turnstile(1)
  const leave = await turnstile.enter()
  const impatient = expect(turnstile.enter(patience)).rejects.toThrow('over')
  await vi.advanceTimersByTimeAsync(PATIENCE_MS)
  await impatient
  leave()
  const another = vi.fn()
  void turnstile.enter().then(another)
  await vi.advanceTimersByTimeAsync(0)
  expect(another).toHaveBeenCalled()
})
