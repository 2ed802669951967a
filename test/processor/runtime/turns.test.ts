import { expect, it } from 'vitest'
import { Turns } from '../../../processor/runtime/turns.ts'

it('lets one batch work in a turn of the event loop, the oldest first', async () => {
  const turns = new Turns()
  const order: string[] = []
  let turn = 0
  let going = true
  const count = () => {
    turn++
    if (going) setImmediate(count)
  }
  setImmediate(count)
  const work = async (name: string) => {
    const mine = turns.take()
    for (let i = 0; i < 3; i++) {
      while (!mine.spend(100_000)) continue
      order.push(name)
      const before = turn
      await mine.next()
      expect(turn).toBeGreaterThan(before)
    }
  }
  await Promise.all([work('a'), work('b')])
  going = false
  expect(order).toEqual(['a', 'b', 'a', 'a', 'b', 'b'])
})

it('says that a turn is over after much work only', () => {
  const turn = new Turns().take()
  let records = 0
  while (!turn.spend(120)) records++
  expect(records).toBeGreaterThan(1000)
  expect(turn.spend(0)).toBe(true)
})
