import { expect, test } from 'vitest'
import { decideOutcome, type TransactionFacts } from '../../../../../processor/log/kafka/claim/hanging.ts'

const closed: TransactionFacts = {
  status: false,
  deadLetters: false,
  offsets: false,
  stable: 10,
  committedEnd: 9,
  beyond: false,
}

test.each<[string, 'commit' | 'abort', Partial<TransactionFacts>]>([
  ['whole and decided nowhere', 'commit', { status: true, offsets: true }],
  ['records without an offset', 'abort', { status: true }],
  ['records without an offset, and none ever committed', 'abort', { status: true, committedEnd: undefined }],
  ['records whose offset is committed', 'commit', { status: true, committedEnd: 12 }],
  ['an offset without records', 'abort', { offsets: true }],
  ['an offset whose records are committed', 'commit', { offsets: true, beyond: true }],
  ['dead letters alone', 'commit', { deadLetters: true }],
  ['dead letters of what is aborted', 'abort', { deadLetters: true, status: true }],
])('%s: %s', (_, decision, facts) => {
  expect(decideOutcome({ ...closed, ...facts })).toBe(decision)
})
