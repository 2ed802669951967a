import { expect, test } from 'vitest'
import { MAX_ABSENCE_MS, type SendingReport, SendingWatch } from '../../../../simulators/drill/load/traffic.ts'
import type { Mark } from '../../../../simulators/drill/report/journal.ts'

const SECOND = 1_000
const MINUTE = 60 * SECOND

/**
 * Of a minute with ten messages a second and two connections. The first is gone from `lostAt` on, for good; the second
 * never. Who looks does so every second.
 */
function aMinute({ lostAt = Infinity, marks = [] }: { lostAt?: number; marks?: readonly Mark[] }): SendingReport {
  const sending = new SendingWatch()
  for (let now = 0; now <= MINUTE; now += SECOND) {
    const look = { now, publishing: true, sent: now / 100, absences: [Math.max(0, now - lostAt), 0] }
    sending.look(
      look,
      marks.filter(({ at }) => at <= now),
    )
  }
  return sending.report
}

test('all that is sent counts while nothing is disturbed, and a connection that is locked out is found', () => {
  expect(aMinute({})).toEqual({ ms: MINUTE, sent: 600, locked: 0, longestMs: 0 })
  expect(aMinute({ lostAt: 10 * SECOND })).toMatchObject({ locked: 1, longestMs: 50 * SECOND })
  expect(aMinute({ lostAt: MINUTE - MAX_ABSENCE_MS })).toMatchObject({ locked: 0, longestMs: MAX_ABSENCE_MS })
})

test('the disturbance of a processor, or of the API, excuses nothing', () => {
  const marks = ['p1', 'api-1'].map((target) => ({ at: 10 * SECOND, verb: 'kill', target }))
  expect(aMinute({ lostAt: 10 * SECOND, marks })).toMatchObject({ ms: MINUTE, locked: 1, longestMs: 50 * SECOND })
})

test.each(['ingest', 'kafka', 'tidemark'])(
  'while %s is away, and just after, nothing is asked of devices',
  (target) => {
    const kill = { at: 10 * SECOND, verb: 'kill', target, doneAt: 10 * SECOND }
    const start = { at: 30 * SECOND, verb: 'start', target, doneAt: 40 * SECOND }
    const before = { ms: 9 * SECOND, sent: 90 }
    expect(aMinute({ lostAt: 10 * SECOND, marks: [kill] })).toEqual({ ...before, locked: 0, longestMs: 0 })
    const { ms, sent, locked, longestMs } = aMinute({ lostAt: 10 * SECOND, marks: [kill, start] })
    expect({ ms, sent }).toEqual({ ms: before.ms + 15 * SECOND, sent: before.sent + 150 })
    expect({ locked, longestMs }).toEqual({ locked: 0, longestMs: 15 * SECOND })
    const sooner = { ...start, doneAt: 31 * SECOND }
    expect(aMinute({ lostAt: 10 * SECOND, marks: [kill, sooner] })).toMatchObject({ locked: 1, longestMs: 24 * SECOND })
    const failed = { at: 30 * SECOND, verb: 'start', target }
    expect(aMinute({ lostAt: 10 * SECOND, marks: [kill, failed] })).toMatchObject({ ...before, locked: 0 })
  },
)

test('devices that lost their connections by a storm have some seconds to be back', () => {
  const marks = [{ at: 10 * SECOND, verb: 'storm', target: 'devices', doneAt: 10 * SECOND }]
  expect(aMinute({ lostAt: 10 * SECOND, marks })).toMatchObject({ ms: 54 * SECOND, locked: 1, longestMs: 45 * SECOND })
})
