import { expect, test, vi } from 'vitest'
import { RestorePriority } from '../../../processor/runtime/limiter.ts'
import { sleeps } from '../runtime/sleeps.ts'

const never = new AbortController().signal

test('a standby waits while owners restore, and goes on when the last one has', async () => {
  const { sleep, ends } = sleeps()
  const restorePriority = new RestorePriority(sleep)
  await restorePriority.turn(never)
  const [one, two] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
  const owners = [restorePriority.first(() => one.promise), restorePriority.first(() => two.promise)]
  let gone = false
  const standby = restorePriority.turn(never).then(() => (gone = true))
  one.resolve()
  await owners[0]
  expect(gone).toBe(false)
  two.reject(new Error('it failed'))
  await expect(owners[1]).rejects.toThrow('it failed')
  await vi.waitFor(() => expect(ends).toHaveLength(2))
  expect(gone).toBe(false)
  ends[1]?.()
  await standby
  await restorePriority.turn(never)
})

test('a standby waits for an owner too that begins just when the last one has ended', async () => {
  const { sleep, ends } = sleeps()
  const restorePriority = new RestorePriority(sleep)
  const [one, two] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
  const first = restorePriority.first(() => one.promise)
  let gone = false
  const standby = restorePriority.turn(never).then(() => (gone = true))
  one.resolve()
  await first
  await vi.waitFor(() => expect(ends).toHaveLength(2))
  const second = restorePriority.first(() => two.promise)
  ends[1]?.()
  await vi.waitFor(() => expect(ends).toHaveLength(3))
  expect(gone).toBe(false)
  two.resolve()
  await second
  await standby
})

test('a standby waits no longer than it may, and not when it is told to end', async () => {
  const { sleep, ends } = sleeps()
  const restorePriority = new RestorePriority(sleep)
  const work = Promise.withResolvers<number>()
  const owner = restorePriority.first(() => work.promise)
  const standby = restorePriority.turn(never)
  ends[0]?.()
  await standby
  const ending = new AbortController()
  const second = restorePriority.turn(ending.signal)
  ending.abort()
  await second
  work.resolve(7)
  expect(await owner).toBe(7)
})
