import { expect, it } from 'vitest'
import { ReceiptStore } from '../../../ingest/mqtt/persistence.ts'

it('an append that fails late takes nothing from the session that has begun anew under the same id', () => {
  const receipts = new ReceiptStore(2, () => false)
  const before = receipts.begin('a', 1)
  receipts.clear('a')
  const now = receipts.begin('a', 1)
  receipts.forget('a', 1, before)
  expect(receipts.get('a', 1)).toBe(now)
  receipts.begin('a', 2)
  expect(receipts.mayBegin()).toBe(false)
  receipts.forget('a', 1, now)
  expect(receipts.mayBegin()).toBe(true)
})
