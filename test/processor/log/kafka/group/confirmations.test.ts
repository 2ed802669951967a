import { getEventListeners } from 'node:events'
import { expect, test } from 'vitest'
import { Confirmations } from '../../../../../processor/log/kafka/group/member.ts'

test('who waits goes on with the next confirmation or the end of its signal, and leaves nothing on it', async () => {
  const confirmations = new Confirmations()
  const [lasting, ending] = [new AbortController(), new AbortController()]
  const order: string[] = []
  for (let i = 0; i < 3; i++) {
    const one = confirmations.next(lasting.signal).then(() => order.push('confirmed'))
    const other = confirmations.next(ending.signal).then(() => order.push('ended'))
    if (i === 0) ending.abort()
    await Promise.resolve()
    confirmations.come()
    await Promise.all([one, other])
    expect(getEventListeners(lasting.signal, 'abort')).toHaveLength(0)
  }
  expect(order).toHaveLength(6)
  expect(order[0]).toBe('ended')
  expect(getEventListeners(ending.signal, 'abort')).toHaveLength(0)
})
