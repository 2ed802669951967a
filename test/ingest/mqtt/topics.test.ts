import { array, assert, constantFrom, property } from 'fast-check'
import { QlobberTrue } from 'qlobber'
import { describe, expect, it } from 'vitest'
import { inTelemetryTree, isIllFormed, matches, mayMatchTelemetry, routeOf } from '../../../ingest/mqtt/topics.ts'

describe('topic grammar', () => {
  it.each([
    ['devices/truck-17/telemetry', 'truck-17', undefined],
    ['devices/truck-17/telemetry/temperature', 'truck-17', 'temperature'],
    ['devices/a.b_c:d-E9/telemetry/pos.lat', 'a.b_c:d-E9', 'pos.lat'],
    [`devices/${'x'.repeat(128)}/telemetry`, 'x'.repeat(128), undefined],
    ['devices/telemetry/telemetry/telemetry', 'telemetry', 'telemetry'],
  ])('%s belongs to a device', (topic, deviceId, metric) => {
    expect(routeOf(topic)).toEqual({ deviceId, metric, reason: undefined })
  })

  it.each([
    ['devices', 'bad-topic'],
    ['devices/', 'bad-topic'],
    ['devices/truck-17', 'bad-topic'],
    ['devices/truck-17/', 'bad-topic'],
    ['devices/truck-17/telemetr', 'bad-topic'],
    ['devices/truck-17/telemetryx', 'bad-topic'],
    ['devices/truck-17/telemetry/', 'bad-topic'],
    ['devices/truck-17/telemetry/a/b', 'bad-topic'],
    ['devices/truck-17/status', 'bad-topic'],
    ['/devices/truck-17/telemetry', 'bad-topic'],
    ['Devices/truck-17/telemetry', 'bad-topic'],
    ['', 'bad-topic'],
    ['devices//telemetry', 'bad-device-id'],
    ['devices/truck 17/telemetry', 'bad-device-id'],
    ['devices/é/telemetry', 'bad-device-id'],
    [`devices/${'x'.repeat(129)}/telemetry`, 'bad-device-id'],
  ])('%j is refused', (topic, reason) => {
    expect(routeOf(topic)).toEqual({ deviceId: undefined, metric: undefined, reason })
  })

  it('knows which filters may match telemetry', () => {
    const may = [
      '#',
      '+/#',
      'devices/#',
      'devices/+/telemetry',
      'devices/a/telemetry/#',
      'devices/a/+',
      '+/+/+',
      'devices/+/#',
      'devices/a/telemetry/+',
    ]
    const cannot = [
      'a/#',
      'devices',
      'devices/a',
      'devices/+/commands',
      'devices/a/commands/#',
      '/devices/#',
      '+',
      '$SYS/#',
    ]
    expect(may.filter((filter) => !mayMatchTelemetry(filter))).toEqual([])
    expect(cannot.filter(mayMatchTelemetry)).toEqual([])
  })

  it('knows the tree', () => {
    expect(inTelemetryTree('devices/a/telemetry')).toBe(true)
    expect(inTelemetryTree('devices/a/telemetry/x/y')).toBe(true)
    expect(inTelemetryTree('devices/a/telemetryx')).toBe(false)
    expect(inTelemetryTree('devices/a/b/telemetry')).toBe(false)
  })

  it('knows ill-formed UTF-8', () => {
    expect(isIllFormed(Buffer.from([0x61, 0xff]).toString())).toBe(true)
    expect(isIllFormed('a\u0000b')).toBe(true)
    expect(isIllFormed('é/日本')).toBe(false)
  })
})

it('matches filters as the broker routes', () => {
  const options = { wildcard_one: '+', wildcard_some: '#', separator: '/', match_empty_levels: true }
  const topics = array(constantFrom('', 'a', 'b', 'ab', '$a'), { minLength: 1, maxLength: 4 })
  const filters = array(constantFrom('', 'a', 'b', 'ab', '$a', '+', '+'), { minLength: 1, maxLength: 4 })
  assert(
    property(topics, filters, constantFrom([], ['#']), (topicLevels, filterLevels, rest) => {
      const topic = topicLevels.join('/')
      const filter = [...filterLevels, ...rest].join('/')
      const matcher = new QlobberTrue(options).add(filter)
      const hidden = topic.startsWith('$') && /^[+#]/.test(filter)
      expect(matches(filter, topic), `${filter} ${topic}`).toBe(!hidden && matcher.test(topic))
    }),
    { numRuns: 2_000 },
  )
  expect(matches('#', 'a/b')).toBe(true)
  expect(matches('#', '$SYS/b')).toBe(false)
})
