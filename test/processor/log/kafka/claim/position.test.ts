import { describe, expect, test } from 'vitest'
import type { ClaimContext } from '../../../../../processor/log/kafka/claim/claim-context.ts'
import {
  HEADER_POSITION,
  hasRecordsFrom,
  lastRecordedCommit,
  withCommitHeader,
} from '../../../../../processor/log/kafka/claim/position.ts'
import type { Batch, LogRecord } from '../../../../../processor/log/log.ts'
import { record } from '../../../../contract/log-records.ts'

const never = new AbortController().signal

/** A changelog that has, at these offsets, records with these headers; what lies between has been compacted away. */
function changelog(end: number, told: Readonly<Record<number, string | undefined>>) {
  const asked: number[] = []
  async function* follow(_: unknown, from: number): AsyncGenerator<Batch> {
    asked.push(from)
    const records: LogRecord[] = Object.entries(told)
      .map(([offset, position]) => ({
        ...record('key', 'x'),
        offset: Number(offset),
        headers: position === undefined ? undefined : { [HEADER_POSITION]: position },
      }))
      .filter(({ offset }) => offset >= from)
    yield { records, next: end - 1, end }
    yield { records: [], next: end, end }
  }
  const context = { bounds: () => Promise.resolve({ start: 0, end }), follow } as unknown as ClaimContext
  return { context, asked }
}

describe('the last commit that a changelog tells of', () => {
  test('is that of the last record that tells', async () => {
    const { context } = changelog(100, { 10: '5 id g', 20: '7 id g', 30: undefined })
    const told = { input: 7, changelogEnd: 21, telemetry: 'id', group: 'g' }
    expect(await lastRecordedCommit(context, 0, 0, never)).toEqual(told)
  })

  test('is not one before the given offset', async () => {
    const { context } = changelog(100, { 10: '5 id g' })
    expect(await lastRecordedCommit(context, 0, 11, never)).toBeUndefined()
  })

  test('is looked for from the end on back', async () => {
    const { context, asked } = changelog(1_000_000, { 950_000: '5 id g', 999_999: undefined })
    expect(await lastRecordedCommit(context, 0, 0, never)).toMatchObject({ input: 5 })
    expect(asked).toEqual([990_000, 900_000])
  })

  test.each(['', '5', '5 id', 'x id g', '-1 id g'])('is not read from %j', async (position) => {
    const { context } = changelog(100, { 10: position })
    expect(await lastRecordedCommit(context, 0, 0, never)).toBeUndefined()
  })

  test('is undefined for an empty one', async () => {
    const { context, asked } = changelog(0, {})
    expect(await lastRecordedCommit(context, 0, 0, never)).toBeUndefined()
    expect(asked).toEqual([])
  })
})

test('only the last record of a commit tells, beside what it said before', () => {
  const records = [record('a', '1'), { ...record('b', '2'), headers: { input: '7' } }]
  const [first, last] = withCommitHeader(records, 7, { telemetry: 'id' }, 'g')
  expect(first?.headers).toBeUndefined()
  expect(last?.headers).toEqual({ input: '7', [HEADER_POSITION]: '7 id g' })
  expect(withCommitHeader([], 7, { telemetry: 'id' }, 'g')).toEqual([])
})

test('a changelog holds more only where records are', async () => {
  const { context } = changelog(100, { 10: undefined })
  expect(await hasRecordsFrom(context, 0, 10, never)).toBe(true)
  expect(await hasRecordsFrom(context, 0, 11, never)).toBe(false)
})
