import { expect, it } from 'vitest'
import { attributesFault } from '../../../processor/contract/attributes.ts'
import { type Field, parseField, valueOf } from '../../../processor/contract/field.ts'
import { HEADER_KIND, HEADER_METRIC } from '../../../processor/contract/record.ts'
import { decodeStatus, isStatus, type Status } from '../../../processor/contract/status.ts'
import { KIND_ATTRIBUTES } from '../../../processor/contract/write.ts'
import { decodeRecord } from '../../../processor/status/decode.ts'
import { encodeStatus, foldStatus } from '../../status-model.ts'

const lists = (depth: number): string => '['.repeat(depth) + ']'.repeat(depth)
const write = (depth: number) => ({ value: `{"a":${lists(depth)}}`, headers: { [HEADER_KIND]: KIND_ATTRIBUTES } })

function decoded({ value, headers }: { value: string; headers: Record<string, string> }) {
  return decodeRecord({ key: 'd', value: Buffer.from(value), timestamp: 0, offset: 0, headers })
}

/** Of 1, 2, …: the last that is taken. */
function deepest(isTaken: (depth: number) => boolean): number {
  let depth = 0
  while (isTaken(depth + 1)) depth++
  return depth
}

it('what is taken as deep as it may be is of a status that a fold goes on with, and that is answered', () => {
  // A topic of one metric leaves its value the most.
  const metric = (depth: number) => decoded({ value: lists(depth), headers: { [HEADER_METRIC]: 'm' } })
  const inMetric = deepest((depth) => metric(depth).kind === 'readings')
  const inAttribute = deepest((depth) => attributesFault(JSON.parse(write(depth).value)) === undefined)
  expect([inMetric, inAttribute].every((depth) => depth > 8)).toBe(true)

  const said = metric(inMetric)
  const asked = decoded({
    ...write(inAttribute),
    headers: { ...write(inAttribute).headers, operation: 'replace' },
  })
  if (said.kind === 'rejected' || asked.kind === 'rejected') throw new Error('it is taken')
  const status = foldStatus(foldStatus(undefined, 'd', said), 'd', asked) as Status
  const stored = decodeStatus(encodeStatus(status))
  expect(isStatus(stored, 'd')).toBe(true)
  for (const name of ['reported.m', 'reported', 'attributes.a', 'attributes']) {
    expect(valueOf(parseField(name) as Field, stored), name).not.toBeNull()
  }
})
