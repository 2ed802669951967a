import { describe, expect, it } from 'vitest'
import { deadLetter } from '../../../processor/contract/dead-letter.ts'
import { connectivityRecord, isDeviceId, MAX_PAYLOAD_BYTES } from '../../../processor/contract/record.ts'
import { MAX_TIME_MS } from '../../../processor/contract/time.ts'
import type { Headers, LogRecord } from '../../../processor/log/log.ts'
import { type Decoded, decodeRecord } from '../../../processor/status/decode.ts'
import { MAX_AHEAD_MS, MAX_ARRAY_MESSAGES, MAX_METRICS } from '../../../processor/status/message.ts'

const RECEIVED = Date.UTC(2026, 10, 24, 10)

function record(value: unknown, headers?: Headers): LogRecord {
  const bytes = Buffer.isBuffer(value) ? value : Buffer.from(typeof value === 'string' ? value : JSON.stringify(value))
  return { key: 'truck-17', value: bytes, timestamp: RECEIVED, offset: 3, headers }
}

function readings(value: unknown, headers?: Headers) {
  const decoded = decodeRecord(record(value, headers))
  if (decoded.kind !== 'readings') throw new Error(JSON.stringify(decoded))
  return decoded.readings
}

function reason(decoded: Decoded) {
  return decoded.kind === 'rejected' ? decoded.reason : undefined
}

const nested = (depth: number): string => '{"a":'.repeat(depth) + '1' + '}'.repeat(depth)
const nestedArray = (depth: number): string => `{"a":${'['.repeat(depth)}${']'.repeat(depth)}}`
const metrics = (count: number) => Object.fromEntries(Array.from({ length: count }, (_, i) => [`m${i}`, i]))
const messages = (count: number) => Array.from({ length: count }, () => ({ a: 1 }))
const padded = (bytes: number) => `{"a":"${'x'.repeat(bytes - 8)}"}`

describe('a rejected payload', () => {
  it.each([
    ['text', 'hello', 'not-json'],
    ['nothing', '', 'not-json'],
    ['cut JSON', '{"a":1', 'not-json'],
    ['bytes that are no UTF-8', Buffer.from([0x22, 0xff, 0x22]), 'not-utf8'],
    ['a scalar', '5', 'not-an-object'],
    ['null', 'null', 'not-an-object'],
    ['a text', '"a"', 'not-an-object'],
    ['an array of scalars', '[1]', 'not-an-object'],
    ['an array of arrays', '[[]]', 'not-an-object'],
    ['an empty array', '[]', 'empty-array'],
    ['too many messages', JSON.stringify(messages(MAX_ARRAY_MESSAGES + 1)), 'too-many-messages'],
    ['objects 17 deep', nested(17), 'too-deep'],
    ['arrays 17 deep', nestedArray(16), 'too-deep'],
    ['nesting of 100,000', nestedArray(100_000), 'too-deep'],
    ['objects 17 deep in an array', `[${nested(16)}]`, 'too-deep'],
    ['257 metrics', metrics(MAX_METRICS + 1), 'too-many-metrics'],
    ['a name of 129 characters', { ['n'.repeat(129)]: 1 }, 'metric-name-too-long'],
    ['a dotted name of 129 characters', { ['n'.repeat(64)]: { ['m'.repeat(64)]: 1 } }, 'metric-name-too-long'],
    ['an empty name', { '': 1 }, 'bad-metric-name'],
    ['an empty name in a name', { a: { '': 1 } }, 'bad-metric-name'],
    ['an empty name over a name', { '': { a: 1 } }, 'bad-metric-name'],
    ['a name with a backslash', '{"a":1,"\\\\":1}', 'bad-metric-name'],
    ['a name with a backslash, otherwise written', '{"a":[{"x\\u005Cy" : 1}]}', 'bad-metric-name'],
    ['the name __proto__', '{"__proto__":1}', 'bad-metric-name'],
    ['a number beyond a double', '{"a":1e999}', 'bad-number'],
    ['a number beyond a double in an array', '{"a":[[-1e999]]}', 'bad-number'],
    ['a seq of text', { seq: 'a', values: {} }, 'bad-seq'],
    ['a negative seq', { seq: -1, values: {} }, 'bad-seq'],
    ['a broken seq', { seq: 1.5, values: {} }, 'bad-seq'],
    ['a payload over the bound', padded(MAX_PAYLOAD_BYTES + 1), 'payload-too-large'],
  ])('is %s', (_name, value, expected) => {
    expect(reason(decodeRecord(record(value)))).toBe(expected)
  })

  it('keeps no name of one device from the names of another', () => {
    expect(reason(decodeRecord(record('{"a":1,"\\\\":1}')))).toBe('bad-metric-name')
    expect(decodeRecord(record('{"a":1,"\\n":"C:\\\\"}'))).toMatchObject({
      readings: [{ names: ['a', '\n'], values: [1, 'C:\\'] }],
    })
  })

  it('is one with a device id outside the grammar, or none', () => {
    for (const key of [null, '', 'a/b', 'a b', 'ü', 'x'.repeat(129)]) {
      expect(reason(decodeRecord({ ...record({ a: 1 }), key }))).toBe('bad-device-id')
    }
  })

  it('is a tombstone', () => {
    expect(reason(decodeRecord({ ...record({ a: 1 }), value: null }))).toBe('not-json')
  })

  it('is one of a time that no calendar has', () => {
    for (const timestamp of [-1, Number.NaN, Number.POSITIVE_INFINITY, 8.64e15]) {
      expect(reason(decodeRecord({ ...record({ a: 1 }), timestamp }))).toBe('bad-timestamp')
    }
  })

  it.each([
    ['no object', '1'],
    ['no state', { reason: 'connected', session: 1 }],
    ['another state', { state: 'gone', reason: 'connected', session: 1 }],
    ['another reason', { state: 'online', reason: 'magic', session: 1 }],
    ['no session', { state: 'online', reason: 'connected' }],
    ['a broken session', { state: 'online', reason: 'connected', session: 0.5 }],
  ])('is a connectivity record with %s', (_name, value) => {
    expect(reason(decodeRecord(record(value, { kind: 'connectivity' })))).toBe('bad-connectivity')
  })
})

describe('an accepted payload', () => {
  it('stands just within each bound', () => {
    expect(readings(nested(16))).toHaveLength(1)
    expect(readings(nestedArray(15))).toHaveLength(1)
    expect(readings(metrics(MAX_METRICS))[0]?.names).toHaveLength(MAX_METRICS)
    expect(readings({ ['n'.repeat(128)]: 1 })).toHaveLength(1)
    expect(readings(padded(MAX_PAYLOAD_BYTES))).toHaveLength(1)
    expect(readings(messages(MAX_ARRAY_MESSAGES))).toHaveLength(MAX_ARRAY_MESSAGES)
    expect(isDeviceId('A-z_0.9:-'.padEnd(128, 'x'))).toBe(true)
  })

  it('flattens objects to dotted names, and keeps arrays', () => {
    const [reading] = readings({
      temperature: 21.5,
      pos: { lat: 1, fix: { ok: true } },
      tags: [{ a: 1 }, null],
      n: null,
    })
    expect(reading?.names).toEqual(['temperature', 'pos.lat', 'pos.fix.ok', 'tags', 'n'])
    expect(reading?.values).toEqual([21.5, 1, true, [{ a: 1 }, null], null])
  })

  it('keeps names that every object has', () => {
    expect(readings('{"constructor":1,"a":{"__proto__":2}}')[0]?.names).toEqual(['constructor', 'a.__proto__'])
  })

  it('reads an envelope, and takes any other object for metrics', () => {
    expect(readings({ ts: RECEIVED, seq: 4, values: { a: 1 } })).toEqual([
      { at: '2026-11-24T10:00:00.000Z', skewed: false, seq: 4, names: ['a'], values: [1] },
    ])
    expect(readings({ values: { a: 1 }, unit: 'C' })[0]?.names).toEqual(['values.a', 'unit'])
    expect(readings({ ts: 5, values: 7 })[0]?.names).toEqual(['ts', 'values'])
  })

  it('reads a single value of any kind under the name of its topic', () => {
    expect(readings('21.5', { metric: 'temperature' })[0]).toMatchObject({ names: ['temperature'], values: [21.5] })
    expect(readings('null', { metric: 'x' })[0]?.values).toEqual([null])
    expect(readings({ lat: 1, lon: 2 }, { metric: 'pos' })[0]?.names).toEqual(['pos.lat', 'pos.lon'])
    expect(reason(decodeRecord(record('1', { metric: '__proto__' })))).toBe('bad-metric-name')
  })

  it('tells the session whose will it is', () => {
    expect(decodeRecord(record({ a: 1 }, { will: '7' }))).toMatchObject({ kind: 'readings', will: 7 })
  })

  it('reads a connectivity record as it is written', () => {
    const connection = { state: 'offline', reason: 'keepalive timeout', session: 9 } as const
    const written = connectivityRecord('truck-17', connection, RECEIVED)
    expect(decodeRecord({ ...written, offset: 0 })).toEqual({ kind: 'connection', receivedAt: RECEIVED, connection })
  })
})

const at = (ts: unknown) => readings({ ts, values: { a: 1 } })[0]

describe('ts', () => {
  it.each([
    [RECEIVED - 1, '2026-11-24T09:59:59.999Z'],
    [0, '1970-01-01T00:00:00.000Z'],
    [RECEIVED + 0.9, '2026-11-24T10:00:00.000Z'],
    [RECEIVED + MAX_AHEAD_MS, '2026-11-24T10:05:00.000Z'],
    ['2026-11-24T09:00:00.123456Z', '2026-11-24T09:00:00.123Z'],
    ['2026-11-24T09:00:00,5Z', '2026-11-24T09:00:00.500Z'],
    ['2026-11-24T10:00:00+01:00', '2026-11-24T09:00:00.000Z'],
    ['2026-11-24T10:00:00+0130', '2026-11-24T08:30:00.000Z'],
    ['2026-11-24T10:00+01', '2026-11-24T09:00:00.000Z'],
    ['2026-11-24T09:00:00', '2026-11-24T09:00:00.000Z'],
    ['2024-02-29T23:30:00-01:00', '2024-03-01T00:30:00.000Z'],
    ['2026-10-31T24:00:00Z', '2026-11-01T00:00:00.000Z'],
  ])('%s is %s', (ts, expected) => {
    expect(at(ts)).toMatchObject({ at: expected, skewed: false })
  })

  it.each([
    RECEIVED + MAX_AHEAD_MS + 1,
    -1,
    1e300,
    null,
    true,
    {},
    [],
    '',
    'NaN',
    'yesterday',
    '1795514400000',
    '2026-13-01T00:00:00Z',
    '2026-02-30T00:00:00Z',
    '2026-02-29T00:00:00+01:00',
    '2026-04-31T12:00:00',
    '2026-01-00T00:00:00Z',
    '2026-11-24',
    '+002026-11-24T09:00:00Z',
    '1969-12-31T23:59:59Z',
    '2027-01-01T00:00:00Z',
  ])('%s is unusable', (ts) => {
    expect(at(ts)).toMatchObject({ at: undefined, skewed: true })
  })
})

describe('deadLetter', () => {
  it('keeps the bytes, the key, the time and the headers, and tells why and whence', () => {
    const original = record('no json', { metric: 'a' })
    expect(deadLetter('not-json', original, { partition: 2, offset: 3 })).toEqual({
      key: 'truck-17',
      value: original.value,
      timestamp: RECEIVED,
      headers: { metric: 'a', reason: 'not-json', partition: '2', offset: '3' },
    })
    expect(deadLetter('bad-topic', { ...original, key: null }, { topic: 'a/b' }).headers).toMatchObject({
      topic: 'a/b',
    })
  })

  it('is whole as long as a log takes it, and else says what was cut', () => {
    const origin = { partition: 2, offset: 3 }
    const letter = (bytes: number, key = 'truck-17', headers = {}) => {
      const original = { key, value: Buffer.alloc(bytes, 'x'), timestamp: RECEIVED, headers }
      return deadLetter('payload-too-large', original, origin)
    }
    expect(letter(1_047_000).value?.byteLength).toBe(1_047_000)
    expect(letter(1_047_000).headers).not.toHaveProperty('truncated')
    const large = letter(5_000_000)
    expect([large.key, large.headers?.truncated]).toEqual(['truck-17', 'value=5000000'])
    expect(large.value?.byteLength).toBeGreaterThan(1_047_000)
    const named = letter(10, 'k'.repeat(350_000))
    expect([named.key?.length, named.headers?.truncated]).toEqual([1024, 'key=350000'])
    const many = letter(
      10,
      'k',
      Object.fromEntries(Array.from({ length: 50_000 }, (_, i) => [`name-${i}`, 'text text'])),
    )
    expect(many.headers).toMatchObject({ 'name-0': 'text text', reason: 'payload-too-large', offset: '3' })
    expect(many.headers?.truncated).toMatch(/^headers=\d+$/)
    expect(Object.keys(many.headers ?? {}).length).toBeLessThan(4_000)
  })

  it.each([-1, -(2 ** 63), 2 ** 63, MAX_TIME_MS + 1, Number.NaN])(
    'of the time %d tells it, and has none',
    (timestamp) => {
      const letter = deadLetter('bad-timestamp', { ...record('1'), timestamp }, { partition: 2, offset: 3 })
      expect([letter.timestamp, letter.headers?.timestamp]).toEqual([-1, String(timestamp)])
    },
  )
})
