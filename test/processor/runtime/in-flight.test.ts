import { expect, test, vi } from 'vitest'
import { InFlight } from '../../../processor/runtime/limiter.ts'
import { sleeps } from './sleeps.ts'

const never = new AbortController().signal

function world(maxRecords = 10) {
  const { sleep, ends } = sleeps()
  const inFlight = new InFlight(maxRecords, sleep)
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

test('a large batch is not passed by ever new ones that fit, and one larger than the bound goes alone', async () => {
  const { begun, batch } = world()
  const a = batch('a', 6)
  const large = batch('large', 50)
  const next = batch('next', 1)
  expect(begun).toEqual(['a'])
  a.end()
  await a.done
  await vi.waitFor(() => expect(begun).toEqual(['a', 'large']))
  large.end()
  await large.done
  await vi.waitFor(() => expect(begun).toEqual(['a', 'large', 'next']))
  next.end()
  await next.done
})

test('a small batch waits for nobody', async () => {
  const { begun, batch } = world(1000)
  const a = batch('a', 1000)
  const large = batch('large', 500)
  const small = batch('small', 15)
  expect(begun).toEqual(['a', 'small'])
  for (const one of [a, large, small]) {
    one.end()
    await one.done
  }
})

test('when nothing ends for long all that wait go on, and the count stays right', async () => {
  const { ends, begun, batch } = world()
  const hanging = batch('hanging', 10)
  const late = batch('late', 5)
  const later = batch('later', 5)
  ends[0]?.()
  await vi.waitFor(() => expect(begun).toEqual(['hanging', 'late', 'later']))
  for (const one of [hanging, late, later]) {
    one.end()
    await one.done
  }
  await expectRight({ begun, batch })
})

test('those that hang do not slow the others down for as long as they hang', async () => {
  const { ends, begun, batch } = world()
  const hanging = batch('hanging', 10)
  const a = batch('a', 5)
  ends[0]?.()
  await vi.waitFor(() => expect(begun).toEqual(['hanging', 'a']))
  a.end()
  await a.done
  const next = [batch('b', 5), batch('c', 5), batch('d', 5)]
  expect(begun).toEqual(['hanging', 'a', 'b', 'c'])
  for (const one of [hanging, ...next]) {
    one.end()
    await one.done
  }
  await expectRight({ begun, batch })
})

test('as long as others end, a batch waits for its turn, however long that takes', async () => {
  const { ends, begun, batch } = world()
  const a = batch('a', 10)
  const b = batch('b', 10)
  const c = batch('c', 10)
  a.end()
  await a.done
  await vi.waitFor(() => expect(begun).toEqual(['a', 'b']))
  const before = ends.length
  for (const end of ends) end()
  await vi.waitFor(() => expect(ends.length).toBeGreaterThan(before))
  expect(begun).toEqual(['a', 'b'])
  b.end()
  await b.done
  await vi.waitFor(() => expect(begun).toEqual(['a', 'b', 'c']))
  c.end()
  await c.done
})

test('a batch does not wait when it is told to end; the count stays right', async () => {
  const { begun, batch } = world()
  const a = batch('a', 10)
  const told = new AbortController()
  const aborted = batch('aborted', 5, told.signal)
  told.abort()
  await vi.waitFor(() => expect(begun).toEqual(['a', 'aborted']))
  for (const one of [a, aborted]) {
    one.end()
    await one.done
  }
  await expectRight({ begun, batch })
})

/** With nothing under way: ten fit, and not one more. */
async function expectRight({ begun, batch }: Pick<ReturnType<typeof world>, 'begun' | 'batch'>): Promise<void> {
  const whole = batch('whole', 10)
  expect(begun.at(-1)).toBe('whole')
  const more = batch('more', 1)
  expect(begun.at(-1)).toBe('whole')
  whole.end()
  await whole.done
  await vi.waitFor(() => expect(begun.at(-1)).toBe('more'))
  more.end()
  await more.done
}
