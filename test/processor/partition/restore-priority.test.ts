import { expect, test, vi } from 'vitest'
import { Precedence } from '../../../processor/runtime/limiter.ts'
import { sleeps } from '../runtime/sleeps.ts'

const never = new AbortController().signal

test('a standby waits while owners restore, and goes on when the last one has', async () => {
  const { sleep, ends } = sleeps()
  const precedence = new Precedence(sleep)
  await precedence.turn(never)
  const [one, two] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
  const owners = [precedence.first(() => one.promise), precedence.first(() => two.promise)]
  let gone = false
  const standby = precedence.turn(never).then(() => (gone = true))
  one.resolve()
  await owners[0]
  expect(gone).toBe(false)
  two.reject(new Error('it failed'))
  await expect(owners[1]).rejects.toThrow('it failed')
  await vi.waitFor(() => expect(ends).toHaveLength(2))
  expect(gone).toBe(false)
  ends[1]?.()
  await standby
  await precedence.turn(never)
})

test('a standby waits for an owner too that begins just when the last one has ended', async () => {
  const { sleep, ends } = sleeps()
  const precedence = new Precedence(sleep)
  const [one, two] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
  const first = precedence.first(() => one.promise)
  let gone = false
  const standby = precedence.turn(never).then(() => (gone = true))
  one.resolve()
  await first
  await vi.waitFor(() => expect(ends).toHaveLength(2))
  const second = precedence.first(() => two.promise)
  ends[1]?.()
  await vi.waitFor(() => expect(ends).toHaveLength(3))
  expect(gone).toBe(false)
  two.resolve()
  await second
  await standby
})

test('a standby waits no longer than it may, and not when it is told to end', async () => {
  const { sleep, ends } = sleeps()
  const precedence = new Precedence(sleep)
  const work = Promise.withResolvers<number>()
  const owner = precedence.first(() => work.promise)
  const standby = precedence.turn(never)
  ends[0]?.()
  await standby
  const ending = new AbortController()
  const second = precedence.turn(ending.signal)
  ending.abort()
  await second
  work.resolve(7)
  expect(await owner).toBe(7)
})
