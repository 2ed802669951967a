import { expect, test, vi } from 'vitest'
import { InFlight } from '../../processor/in-flight.ts'
import { sleeps } from './sleeps.ts'

const never = new AbortController().signal

/** Ten records at most. */
function world() {
  const { sleep, ends } = sleeps()
  const inFlight = new InFlight(10, sleep)
  const begun: string[] = []
  /** A batch that is under way until its `end` is called. */
  const batch = (name: string, records: number, signal: AbortSignal = never) => {
    const { promise, resolve: end, reject: fail } = Promise.withResolvers<void>()
    const done = inFlight.run(records, signal, () => {
      begun.push(name)
      return promise
    })
    return { end, fail, done }
  }
  return { ends, begun, batch }
}

test('batches go on at once while they fit, then in their order as others end', async () => {
  const { begun, batch } = world()
  const a = batch('a', 6)
  const b = batch('b', 4)
  const c = batch('c', 7)
  const d = batch('d', 3)
  expect(begun).toEqual(['a', 'b'])
  b.end()
  await b.done
  expect(begun).toEqual(['a', 'b'])
  a.fail(new Error('it failed'))
  await expect(a.done).rejects.toThrow('it failed')
  await vi.waitFor(() => expect(begun).toEqual(['a', 'b', 'c', 'd']))
  c.end()
  d.end()
  await Promise.all([c.done, d.done])
})

test('a small batch goes on beside a large one that waits, and one larger than the bound goes alone', async () => {
  const { begun, batch } = world()
  const a = batch('a', 6)
  const large = batch('large', 50)
  const small = batch('small', 1)
  expect(begun).toEqual(['a', 'small'])
  a.end()
  await a.done
  expect(begun).toEqual(['a', 'small'])
  small.end()
  await small.done
  await vi.waitFor(() => expect(begun).toEqual(['a', 'small', 'large']))
  const next = batch('next', 1)
  expect(begun).toHaveLength(3)
  large.end()
  await large.done
  await vi.waitFor(() => expect(begun).toHaveLength(4))
  next.end()
  await next.done
})

test('a batch waits no longer than its time, and not when it is told to end; the count stays right', async () => {
  const { ends, begun, batch } = world()
  const hanging = batch('hanging', 10)
  const late = batch('late', 5)
  const told = new AbortController()
  const aborted = batch('aborted', 5, told.signal)
  ends[0]?.()
  await vi.waitFor(() => expect(begun).toEqual(['hanging', 'late']))
  told.abort()
  await vi.waitFor(() => expect(begun).toEqual(['hanging', 'late', 'aborted']))
  for (const one of [hanging, late, aborted]) {
    one.end()
    await one.done
  }
  const whole = batch('whole', 10)
  expect(begun.at(-1)).toBe('whole')
  const more = batch('more', 1)
  expect(begun.at(-1)).toBe('whole')
  whole.end()
  await whole.done
  await vi.waitFor(() => expect(begun.at(-1)).toBe('more'))
  more.end()
  await more.done
})
