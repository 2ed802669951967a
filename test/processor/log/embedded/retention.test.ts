import { describe, expect, test, vi } from 'vitest'
import type { Claim } from '../../../../processor/log/log.ts'
import { read, TestMember } from '../../../contract/log-member.ts'
import { record, text } from '../../../contract/log-records.ts'
import { dump, folder, openLog } from './folder.ts'

const TELEMETRY = { topic: 'telemetry', index: 0 } as const

function sized(from: number, count: number, timestamp: number) {
  return Array.from({ length: count }, (_, i) => ({ ...record('k', `${from + i}`.padEnd(100)), timestamp }))
}

describe('retention', () => {
  test('by size removes the oldest, but nothing that is not processed, and holds over a reopening', async () => {
    const path = await folder()
    const options = { segmentBytes: 5000, retention: { telemetryBytes: 20_000 }, now: () => 0 }
    const log = await openLog(path, options)
    for (let from = 0; from < 1000; from += 20) await log.append('telemetry', sized(from, 20, 0))
    await log.tidy()
    expect(await log.bounds(TELEMETRY)).toEqual({ start: 0, end: 1000 })

    const member = new TestMember('m').join(log)
    await vi.waitFor(() => expect(member.claims.size).toBe(1))
    await (member.claims.get(0) as Claim).commit({ changelog: [], deadLetters: [], next: 500 })
    await log.tidy()
    const halfway = await log.bounds(TELEMETRY)
    expect(halfway.start).toBeGreaterThan(400)
    expect(halfway.start).toBeLessThanOrEqual(500)

    await (member.claims.get(0) as Claim).commit({ changelog: [], deadLetters: [], next: 1000 })
    await log.tidy()
    const bounds = await log.bounds(TELEMETRY)
    expect(bounds.start).toBeGreaterThan(800)
    expect(bounds.end).toBe(1000)
    const expected = Array.from({ length: 1000 - bounds.start }, (_, i) => `${bounds.start + i}`)
    expect((await dump(log, 'telemetry')).map((r) => text(r).trim())).toEqual(expected)
    const below = read(log, 'telemetry', 0, bounds.start - 1, 1000)
    await expect(below).rejects.toMatchObject({ name: 'OffsetOutOfRangeError', code: 'OFFSET_OUT_OF_RANGE' })

    await member.leave()
    await log[Symbol.asyncDispose]()
    const again = await openLog(path, options)
    expect(await again.bounds(TELEMETRY)).toEqual(bounds)
    expect((await dump(again, 'telemetry')).map((r) => text(r).trim())).toEqual(expected)
  })

  test('by age removes what is old enough', async () => {
    let now = 1000
    const retention = { deadLettersMs: 500 }
    const log = await openLog(await folder(), { segmentBytes: 1000, retention, now: () => now })
    for (let i = 0; i < 20; i++) await log.append('dead-letters', sized(i * 10, 10, 1000 + i * 100))
    now = 2000
    await log.tidy()
    const { start } = await log.bounds({ topic: 'dead-letters', index: 0 })
    expect(start).toBe(50)
    now = 1e9
    await log.tidy()
    expect((await log.bounds({ topic: 'dead-letters', index: 0 })).end).toBe(200)
    await log.append('dead-letters', sized(200, 1, now))
    expect((await dump(log, 'dead-letters')).map((r) => text(r).trim()).at(-1)).toBe('200')
  })

  test('leaves the end of a partition whose last segment is full, and old, where it is when the log is opened again', async () => {
    const path = await folder()
    const options = { segmentBytes: 1000, retention: { telemetryMs: 500, deadLettersMs: 500 }, now: () => 1e9 }
    const log = await openLog(path, options)
    for (const topic of ['telemetry', 'dead-letters'] as const) {
      for (let from = 0; from < 30; from += 10) await log.append(topic, sized(from, 10, 0))
    }
    const member = new TestMember('m').join(log)
    await vi.waitFor(() => expect(member.claims.size).toBe(1))
    await (member.claims.get(0) as Claim).commit({ changelog: [], deadLetters: [], next: 30 })
    await log.tidy()
    await member.leave()
    await log[Symbol.asyncDispose]()

    const again = await openLog(path, options)
    for (const topic of ['telemetry', 'dead-letters'] as const) {
      expect(await again.bounds({ topic, index: 0 })).toEqual({ start: 20, end: 30 })
      await again.append(topic, sized(30, 10, 1e9))
      const records = await read(again, topic, 0, 30, 40)
      expect(records.map((r) => text(r).trim())).toEqual(Array.from({ length: 10 }, (_, i) => `${30 + i}`))
    }
    // What has a successor goes.
    await again.append('dead-letters', sized(40, 10, 1e9))
    await again.tidy()
    expect(await again.bounds({ topic: 'dead-letters', index: 0 })).toEqual({ start: 30, end: 50 })
  })
})
