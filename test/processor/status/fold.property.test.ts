import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { decodeStatus, type Status } from '../../../processor/contract/status.ts'
import type { LogRecord, NewRecord } from '../../../processor/log/log.ts'
import { decodeRecord } from '../../../processor/status/decode.ts'
import { encodeStatus, foldStatus } from '../../status-model.ts'
import { logged, T0, telemetry } from './arbitraries.ts'

function apply(status: Status | undefined, record: LogRecord): Status | undefined {
  const decoded = decodeRecord({ ...record, key: 'd' })
  return decoded.kind === 'rejected' ? status : foldStatus(status, 'd', decoded)
}

function foldAll(records: readonly NewRecord[]): Status | undefined {
  return logged(records).reduce<Status | undefined>(apply, undefined)
}

function withoutDuplicates(status: Status | undefined): unknown {
  return status && { ...status, counters: { ...status.counters, duplicates: 0 } }
}

const withoutCounts = (status: Status) => JSON.stringify({ ...status, counters: undefined })

const said = (json: unknown): NewRecord => {
  return { key: 'd', value: Buffer.from(JSON.stringify(json)), timestamp: T0, headers: undefined }
}

const streams = fc.array(telemetry, { maxLength: 40 })

/** Messages as a device numbers them: seq and ts grow together. Each with its place in the stream of its duplicates. */
const numbered = fc
  .tuple(fc.nat(1000), fc.array(fc.tuple(fc.constantFrom('a', 'b', 'c'), fc.nat(99), fc.integer({ min: 1, max: 50 }))))
  .map(([first, steps]) => {
    let ts = T0
    return steps.map(([name, value, step], i): NewRecord => {
      ts += step
      const json = { seq: first + i, ts, values: { [name]: value } }
      return { key: 'd', value: Buffer.from(JSON.stringify(json)), timestamp: T0 + 100_000, headers: undefined }
    })
  })

describe('fold', () => {
  it('gives the same status, apart from counters.duplicates, however duplicates follow their originals', () => {
    const places = fc.array(fc.tuple(fc.nat(), fc.nat()), { maxLength: 30 })
    fc.assert(
      fc.property(numbered, places, (messages, copies) => {
        const stream = [...messages]
        let inserted = 0
        for (const [which, where] of copies) {
          if (messages.length === 0) break
          const copy = messages[which % messages.length] as NewRecord
          const from = stream.indexOf(copy) + 1
          stream.splice(from + (where % (stream.length - from + 1)), 0, { ...copy, timestamp: copy.timestamp + 1 })
          inserted++
        }
        const status = foldAll(stream)
        expect(withoutDuplicates(status)).toEqual(withoutDuplicates(foldAll(messages)))
        expect(status?.counters.duplicates ?? 0).toBe(inserted)
      }),
    )
  })

  it('reports the same, and counts each message once, in any order with any duplicates within the bound', () => {
    // Up to 16 ranges of numbers are remembered: moves within a window of 16 cannot open more gaps than that.
    const disorders = fc.array(fc.tuple(fc.nat(15), fc.nat(2)), { minLength: 60, maxLength: 60 })
    fc.assert(
      fc.property(numbered, disorders, (messages, disorder) => {
        const keyed = messages.flatMap((message, i) => {
          const [shift, copies] = disorder[i % disorder.length] as [number, number]
          return Array.from({ length: copies + 1 }, (_, copy) => ({ message, place: i + ((shift + copy * 5) % 16) }))
        })
        keyed.sort((a, b) => a.place - b.place)
        const status = foldAll(keyed.map(({ message }) => message))
        const inOrder = foldAll(messages)
        expect(status?.reported).toEqual(inOrder?.reported)
        expect(status?.sequence).toEqual(inOrder?.sequence)
        expect(status?.counters.messages).toBe(inOrder?.counters.messages)
        expect(status?.counters.duplicates ?? 0).toBe(keyed.length - messages.length)
      }),
    )
  })

  it('never lets the event time of a metric go back, nor a session, nor a counter, nor rev', () => {
    fc.assert(
      fc.property(streams, (records) => {
        let status: Status | undefined
        for (const record of logged(records)) {
          const before = status === undefined ? undefined : structuredClone(status)
          status = apply(status, record)
          if (before === undefined || status === undefined) continue
          expect(status.rev === before.rev).toBe(withoutCounts(status) === withoutCounts(before))
          for (const [name, { at }] of Object.entries(before.reported)) {
            expect((status.reported[name]?.at ?? '') >= at).toBe(true)
          }
          expect(status.connectivity.session).toBeGreaterThanOrEqual(before.connectivity.session)
          expect(status.rev).toBeGreaterThanOrEqual(before.rev)
          expect(status.lastSeenAt >= before.lastSeenAt && status.firstSeenAt <= before.firstSeenAt).toBe(true)
          for (const [name, count] of Object.entries(before.counters)) {
            expect(status.counters[name as keyof Status['counters']]).toBeGreaterThanOrEqual(count)
          }
        }
      }),
    )
  })

  it('gives the same when the status went through its bytes in between', () => {
    fc.assert(
      fc.property(streams, (records) => {
        const through = logged(records).reduce<Status | undefined>((status, record) => {
          const next = apply(status, record)
          return next && decodeStatus(encodeStatus(next))
        }, undefined)
        const whole = foldAll(records)
        expect(through && encodeStatus(through).toString()).toBe(whole && encodeStatus(whole).toString())
      }),
    )
  })

  it('gives for an array what its elements give one by one', () => {
    const element = fc.record(
      {
        ts: fc.integer({ min: T0 - 99, max: T0 + 99 }),
        seq: fc.nat(9),
        values: fc.dictionary(fc.constantFrom('a', 'b'), fc.nat(), { noNullPrototype: true }),
      },
      { requiredKeys: ['values'] },
    )
    fc.assert(
      fc.property(fc.array(element, { minLength: 1, maxLength: 20 }), (elements) => {
        expect(foldAll([said(elements)])).toEqual(foldAll(elements.map(said)))
      }),
    )
  })
})
