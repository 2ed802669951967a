import { getPriority } from 'node:os'
import { expect, test } from 'vitest'
import { yieldToOthers } from '../../../processor/runtime/turns.ts'

test('a thread without /proc goes on as it is', () => {
  const before = getPriority()
  yieldToOthers('/nowhere/thread-self')
  expect(getPriority()).toBe(before)
})
