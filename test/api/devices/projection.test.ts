import { expect, it } from 'vitest'
import { projectionOf } from '../../../api/devices/projection.ts'
import { sliceOf } from '../../../processor/contract/query.ts'

it.each([
  ['{"deviceId":"c"}', '{"deviceId":"c"'],
  ['{"deviceId":"c","reported":null,"attributes":[]}', '{"deviceId":"c"'],
  ['{"deviceId":"c","reported":{"a":null},"rev":7}', '{"deviceId":"c","reported":{"a":{}},"rev":7'],
])('an answer has of %s, which is no status, what there is of the fields', (stored, shown) => {
  expect(
    projectionOf('reported.a,reported.b.at,attributes.x.y,connectivity.state,rev')(sliceOf(Buffer.from(stored))),
  ).toBe(shown)
})

it('an answer has null in place of what another program nested so deep that JSON.stringify fails at it', () => {
  const deep = '['.repeat(20_000) + ']'.repeat(20_000)
  const stored = sliceOf(Buffer.from(`{"deviceId":"c","attributes":{"x":{"y":${deep}}}}`))
  expect(projectionOf('attributes.x.y')(stored)).toBe('{"deviceId":"c","attributes":{"x":{"y":null}}')
  expect(projectionOf('attributes')(stored)).toBe('{"deviceId":"c","attributes":null')
})
