import { describe, expect, it } from 'vitest'
import { type Connection, connectivityRecord } from '../../../processor/contract/record.ts'
import { decodeStatus, MAX_SEQUENCE_RANGES, type Status } from '../../../processor/contract/status.ts'
import type { Headers } from '../../../processor/log/log.ts'
import { decodeRecord } from '../../../processor/status/decode.ts'
import { encodeStatus, foldStatus } from '../../status-model.ts'

const T0 = Date.UTC(2026, 10, 24, 10)
const iso = (ms: number) => new Date(T0 + ms).toISOString()

/** A device and what it says, at milliseconds after T0. */
class Device {
  status: Status | undefined

  says(at: number, payload: unknown, headers?: Headers): this {
    return this.#apply(at, Buffer.from(JSON.stringify(payload)), headers)
  }

  connection(
    at: number,
    state: Connection['state'],
    session: number,
    reason: Connection['reason'] = 'connected',
  ): this {
    const { value, headers } = connectivityRecord('d', { state, session, reason }, T0 + at)
    return this.#apply(at, value as Buffer, headers)
  }

  #apply(at: number, value: Buffer, headers: Headers | undefined): this {
    const decoded = decodeRecord({ key: 'd', value, timestamp: T0 + at, offset: 0, headers })
    if (decoded.kind === 'rejected') throw new Error(decoded.reason)
    this.status = foldStatus(this.status, 'd', decoded)
    return this
  }

  get known(): Status {
    if (this.status === undefined) throw new Error('the device is not known')
    return this.status
  }
}

const numbered = (seq: number, ts: number | undefined, a = seq) =>
  ts === undefined ? { seq, values: { a } } : { seq, ts: T0 + ts, values: { a } }

describe('a message', () => {
  it('makes a device', () => {
    expect(new Device().says(0, { temperature: 21.5 }).status).toEqual({
      deviceId: 'd',
      rev: 1,
      reported: { temperature: { value: 21.5, at: iso(0) } },
      connectivity: { state: 'unknown', since: iso(0), reason: 'no session seen', session: 0 },
      firstSeenAt: iso(0),
      lastSeenAt: iso(0),
      counters: { messages: 1, late: 0, duplicates: 0, skewed: 0 },
    })
  })

  it('older than what is stored changes the other metrics, and counts as late', () => {
    const device = new Device()
      .says(10, { ts: T0 + 5, values: { a: 1 } })
      .says(20, { ts: T0 + 3, values: { a: 2, b: 2 } })
    expect(device.known.reported).toEqual({ a: { value: 1, at: iso(5) }, b: { value: 2, at: iso(3) } })
    expect(device.known.counters).toMatchObject({ messages: 2, late: 1 })
  })

  it('of the same time as what is stored wins, being the later', () => {
    expect(
      new Device().says(0, { ts: T0, values: { a: 1 } }).says(9, { ts: T0, values: { a: 2 } }).known.reported,
    ).toEqual({
      a: { value: 2, at: iso(0) },
    })
  })

  it.each([T0 + 10 * 60_000, -5, 'NaN', null])(
    'with the unusable ts %s holds at its receipt, and counts as skewed',
    (ts) => {
      const { reported, counters } = new Device().says(7, { ts, values: { a: 1 } }).known
      expect(reported.a).toEqual({ value: 1, at: iso(7) })
      expect(counters).toMatchObject({ messages: 1, skewed: 1 })
    },
  )

  it('received by another clock moves the times of sight apart only', () => {
    const { firstSeenAt, lastSeenAt } = new Device().says(50, { a: 1 }).says(40, { a: 1 }).says(45, { a: 1 }).known
    expect([firstSeenAt, lastSeenAt]).toEqual([iso(40), iso(50)])
  })

  it('may report metrics that every object has by name', () => {
    const { reported } = new Device().says(0, { constructor: 1, toString: 2, hasOwnProperty: 3 }).known
    expect(Object.keys(reported)).toEqual(['constructor', 'toString', 'hasOwnProperty'])
  })

  it('of an array counts each, as if sent one by one', () => {
    const messages = [numbered(1, 1), { b: 2 }, numbered(2, 0)]
    const one = new Device()
    for (const message of messages) one.says(9, message)
    expect(new Device().says(9, messages).status).toEqual(one.status)
    expect(one.known.counters.messages).toBe(3)
  })
})

describe('seq', () => {
  it('seen before has no effect but the count of duplicates', () => {
    const device = new Device().says(0, numbered(1, 0)).says(1, numbered(2, 1))
    const before = structuredClone(device.known)
    device
      .says(2, numbered(1, 0, 99))
      .says(3, numbered(2, 1, 99))
      .says(4, numbered(2, undefined, 99))
    expect(device.status).toEqual({ ...before, counters: { ...before.counters, duplicates: 3 } })
  })

  it('may come out of order, and joins its ranges', () => {
    const device = new Device()
    for (const seq of [5, 3, 9, 4, 7, 8]) device.says(seq, numbered(seq, undefined))
    expect(device.known.sequence?.seen).toEqual([
      [3, 5],
      [7, 9],
    ])
    expect(device.known.counters).toMatchObject({ messages: 6, duplicates: 0 })
  })

  it(`forgets the lowest of more than ${MAX_SEQUENCE_RANGES} ranges`, () => {
    const device = new Device()
    for (let i = 0; i <= MAX_SEQUENCE_RANGES; i++) device.says(i, numbered(i * 2, undefined))
    expect(device.known.sequence?.seen).toHaveLength(MAX_SEQUENCE_RANGES)
    expect(device.known.sequence?.seen[0]).toEqual([2, 2])
  })

  it('from the start again, with a newer time, is a device that lost its memory', () => {
    const device = new Device().says(0, numbered(0, 0)).says(1, numbered(1, 1)).says(2, numbered(2, 2))
    device.says(100, numbered(0, 100, 50)).says(101, numbered(1, 101, 51))
    expect(device.known.counters).toMatchObject({ messages: 5, duplicates: 0 })
    expect(device.known.reported.a).toEqual({ value: 51, at: iso(101) })
    device.says(102, numbered(1, 101))
    expect(device.known.counters.duplicates).toBe(1)
  })

  it('from the start again, without a time, is one only in a new session', () => {
    const device = new Device().says(0, numbered(0, undefined)).connection(1, 'online', 5)
    device.says(2, numbered(1, undefined)).says(3, numbered(2, undefined))
    device.says(4, numbered(1, undefined))
    expect(device.known.counters.duplicates).toBe(1)
    device.connection(5, 'online', 6).says(6, numbered(1, undefined, 70))
    expect(device.known.counters).toMatchObject({ messages: 4, duplicates: 1 })
    expect(device.known.reported.a?.value).toBe(70)
  })
})

describe('a connection', () => {
  it('alone does not make a device', () => {
    expect(new Device().connection(0, 'online', 1).status).toBeUndefined()
  })

  it('follows its session from beginning to end', () => {
    const device = new Device().says(0, { a: 1 }).connection(1, 'online', 4)
    expect(device.known.connectivity).toEqual({ state: 'online', since: iso(1), reason: 'connected', session: 4 })
    device.connection(2, 'offline', 4, 'keepalive timeout')
    expect(device.known.connectivity).toEqual({
      state: 'offline',
      since: iso(2),
      reason: 'keepalive timeout',
      session: 4,
    })
    expect(device.known.rev).toBe(3)
  })

  it('of an older session never overrides a newer one, as when a takeover ends the old session late', () => {
    const device = new Device().says(0, { a: 1 }).connection(1, 'online', 4).connection(2, 'online', 5)
    const before = structuredClone(device.known)
    device.connection(3, 'offline', 4, 'taken over').says(4, { a: 'gone' }, { will: '4' })
    expect(device.status).toEqual(before)
  })

  it('taken over stays online since the first session', () => {
    const device = new Device().says(0, { a: 1 }).connection(1, 'online', 4).connection(2, 'online', 5)
    expect(device.known.connectivity).toMatchObject({ state: 'online', since: iso(1), session: 5 })
  })

  it('that has ended is not changed by what comes after of it', () => {
    const device = new Device()
      .says(0, { a: 1 })
      .connection(1, 'online', 4)
      .connection(2, 'offline', 4, 'client disconnect')
    device.connection(3, 'online', 4).connection(4, 'offline', 4, 'connection lost')
    expect(device.known.connectivity).toMatchObject({ state: 'offline', reason: 'client disconnect', since: iso(2) })
  })

  it('lets the will of its own session apply', () => {
    const device = new Device().says(0, { a: 1 }).connection(1, 'online', 4).says(2, { a: 'gone' }, { will: '4' })
    expect(device.known.reported.a?.value).toBe('gone')
  })
})

describe('a status', () => {
  it('is the same from its bytes', () => {
    const device = new Device()
      .says(0, [numbered(3, 1), { 'ü"\n': '\ud800', 7: [1, { b: null }] }])
      .connection(1, 'online', 2)
    expect(decodeStatus(encodeStatus(device.known))).toEqual(device.status)
    const bytes = encodeStatus(device.known)
    expect(encodeStatus(decodeStatus(new Uint8Array(bytes))).equals(bytes)).toBe(true)
  })
})
