import { expect, it } from 'vitest'
import { Change, DeviceNumbers } from '../../../api/changes/change.ts'
import { Matcher } from '../../../processor/search/language/match.ts'
import { parseQuery } from '../../../processor/search/language/parser.ts'

const HOT = new Matcher(parseQuery('reported.temperature:>20'))
const COLD = new Matcher(parseQuery('NOT reported.temperature:>20'))

it.each([
  ['no JSON', 'garbage'],
  ['null', 'null'],
  ['an array', '[1]'],
  ['another device', '{"deviceId":"b","reported":{"temperature":{"value":30}}}'],
  ['nothing', ''],
  ['a status that is broken within', '{"deviceId":"a","rev":1,"reported":{"temperature":{"value":}}}'],
])('a record of another program with %s is a device without fields to streams', (_, value) => {
  const record = { offset: 7, key: 'a', value: Buffer.from(value), timestamp: 0, headers: undefined }
  const change = new Change(0, record, new DeviceNumbers(1))
  expect([HOT, COLD, undefined].map((matcher) => change.matches(matcher))).toEqual([false, true, true])
})

it('what such a record tells is shown as JSON, whatever its key', () => {
  const record = { offset: 7, key: 'a"b', value: Buffer.from('garbage'), timestamp: 0, headers: undefined }
  expect(JSON.parse(new Change(0, record, new DeviceNumbers(1)).text as string)).toEqual({ deviceId: 'a"b' })
})
