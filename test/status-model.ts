import { MAX_ATTRIBUTES_BYTES, mergePatch } from '../processor/contract/attributes.ts'
import type { Connection } from '../processor/contract/record.ts'
import { type Counters, MAX_SEQUENCE_RANGES, type Sequence, type Status } from '../processor/contract/status.ts'
import { isoTime } from '../processor/contract/time.ts'
import { isAt, type Outcome, type Write } from '../processor/contract/write.ts'
import type { Decoded } from '../processor/status/decode.ts'
import { decide as productDecide, fold as productFold } from '../processor/status/fold.ts'
import { HeldStatus } from '../processor/status/held-status.ts'
import type { Reading } from '../processor/status/message.ts'

/** What JSON.stringify writes of the members that a status has, in their order. */
export function statusText(status: Status): string {
  const { deviceId, rev, reported, connectivity, firstSeenAt, lastSeenAt, counters, sequence, attributes } = status
  const members = { deviceId, rev, reported, connectivity, firstSeenAt, lastSeenAt, counters, sequence, attributes }
  return JSON.stringify(members)
}

export function encodeStatus(status: Status): Buffer {
  return Buffer.from(statusText(status))
}

type Accepted = Exclude<Decoded, { kind: 'rejected' }>

/** The product's fold, from JSON to JSON. */
export function foldStatus(status: Status | undefined, deviceId: string, record: Accepted): Status | undefined {
  return parsed(productFold(held(status), deviceId, record))
}

/** The product's decision on a write, from JSON to JSON. */
export function decideStatus(
  status: Status | undefined,
  write: Write,
): { outcome: Outcome; status: Status | undefined } {
  const { outcome, status: after } = productDecide(held(status), write)
  return { outcome, status: parsed(after) }
}

function held(status: Status | undefined): HeldStatus | undefined {
  return status === undefined ? undefined : HeldStatus.decode(status.deviceId, encodeStatus(status))
}

function parsed(status: HeldStatus | undefined): Status | undefined {
  return status === undefined ? undefined : (JSON.parse(status.text()) as Status)
}

/** The rules of the fold over again, on plain objects, to compare the product with. It may change `status` in place. */
export function modelFold(status: Status | undefined, deviceId: string, record: Accepted): Status | undefined {
  if (record.kind === 'connection') {
    return status === undefined ? undefined : foldConnection(status, record.connection, record.receivedAt)
  }
  if (record.kind === 'write') return modelDecide(status, record.write).status
  // A takeover publishes the old session's will after the new session has begun.
  if (record.will !== undefined && status !== undefined && record.will < status.connectivity.session) return status
  const receivedAt = isoTime(record.receivedAt)
  let folded = status
  for (const reading of record.readings) folded = foldReading(folded ?? born(deviceId, receivedAt), reading, receivedAt)
  return folded
}

function born(deviceId: string, receivedAt: string): Status {
  return {
    deviceId,
    rev: 0,
    reported: {},
    connectivity: { state: 'unknown', since: receivedAt, reason: 'no session seen', session: 0 },
    firstSeenAt: receivedAt,
    lastSeenAt: receivedAt,
    counters: { messages: 0, late: 0, duplicates: 0, skewed: 0 },
  }
}

function foldConnection(status: Status, connection: Connection, receivedAt: number): Status {
  const current = status.connectivity
  if (connection.session < current.session) return status
  // Within a session only its end can follow, and nothing after the end is news.
  if (connection.session === current.session && (current.state !== 'online' || connection.state === 'online'))
    return status
  const at = isoTime(receivedAt)
  const since = connection.state === current.state ? current.since : at
  status.connectivity = { state: connection.state, since, reason: connection.reason, session: connection.session }
  status.rev++
  return status
}

function foldReading(status: Status, reading: Reading, receivedAt: string): Status {
  const counters: Counters = status.counters
  if (reading.seq !== undefined && !admit(status, reading.seq, reading.at)) {
    counters.duplicates++
    return status
  }
  const at = reading.at ?? receivedAt
  const reported = status.reported
  let late = false
  for (let i = 0; i < reading.names.length; i++) {
    const name = reading.names[i] as string
    // A metric may be called `constructor`, which every object has by inheritance.
    const metric = Object.hasOwn(reported, name) ? reported[name] : undefined
    const value = reading.values[i] as Status['reported'][string]['value']
    if (metric === undefined) {
      reported[name] = { value, at }
      // ISO 8601 of one form and four-digit years compare as text; at a tie the later offset wins.
    } else if (metric.at <= at) {
      metric.value = value
      metric.at = at
    } else {
      late = true
    }
  }
  status.rev++
  counters.messages++
  if (late) counters.late++
  if (reading.skewed) counters.skewed++
  // Gateways' clocks differ, so the receipt time may step back.
  if (receivedAt > status.lastSeenAt) status.lastSeenAt = receivedAt
  if (receivedAt < status.firstSeenAt) status.firstSeenAt = receivedAt
  return status
}

/** Marks `seq` as applied. False when it was applied before. */
function admit(status: Status, seq: number, at: string | undefined): boolean {
  const session = status.connectivity.session
  const sequence = status.sequence
  if (sequence === undefined) {
    status.sequence = at === undefined ? { seen: [[seq, seq]], session } : { seen: [[seq, seq]], session, at }
    return true
  }
  if (includes(sequence.seen, seq)) {
    if (!restarted(sequence, seq, at, session)) return false
    sequence.seen = [[seq, seq]]
  } else {
    insert(sequence.seen, seq)
  }
  if (at !== undefined && (sequence.at === undefined || at > sequence.at)) sequence.at = at
  sequence.session = session
  return true
}

/**
 * A device that lost its memory counts from the start again, and what it says is new. A duplicate repeats its own time,
 * so a number seen before with a time newer than any before it is no duplicate. Without times, a count that starts again
 * at 0 or 1 in a new session is taken for a restart.
 */
function restarted(sequence: Sequence, seq: number, at: string | undefined, session: number): boolean {
  if (at !== undefined) return sequence.at !== undefined && at > sequence.at
  const highest = sequence.seen.at(-1) as [number, number]
  return seq <= 1 && highest[1] > 1 && session > sequence.session
}

function includes(seen: readonly [number, number][], seq: number): boolean {
  for (let i = seen.length - 1; i >= 0; i--) {
    const [low, high] = seen[i] as [number, number]
    if (seq > high) return false
    if (seq >= low) return true
  }
  return false
}

/** Adds a number that is in none of the ranges, joining neighbours. */
function insert(seen: [number, number][], seq: number): void {
  let i = seen.length
  while (i > 0 && (seen[i - 1] as [number, number])[0] > seq) i--
  const below = seen[i - 1]
  const above = seen[i]
  const joinsBelow = below !== undefined && below[1] === seq - 1
  const joinsAbove = above !== undefined && above[0] === seq + 1
  if (joinsBelow && joinsAbove) {
    below[1] = above[1]
    seen.splice(i, 1)
  } else if (joinsBelow) {
    below[1] = seq
  } else if (joinsAbove) {
    above[0] = seq
  } else {
    seen.splice(i, 0, [seq, seq])
    if (seen.length > MAX_SEQUENCE_RANGES) seen.shift()
  }
}

export function modelDecide(
  status: Status | undefined,
  write: Write,
): { readonly outcome: Outcome; readonly status: Status | undefined } {
  if (status === undefined) return { outcome: 'unknown-device', status }
  if (write.ifMatch !== undefined && !isAt(status, write.ifMatch)) return { outcome: 'stale', status }
  if (write.kind === 'deletion') return { outcome: 'applied', status: undefined }
  const old = status.attributes ?? {}
  const attributes = write.operation === 'merge' ? mergePatch(old, write.attributes) : write.attributes
  // Compares texts: a status must not depend on whether it went through its bytes, which have no -0.
  const text = JSON.stringify(attributes)
  if (Buffer.byteLength(text) > MAX_ATTRIBUTES_BYTES) return { outcome: 'attributes-too-large', status }
  if (text === JSON.stringify(old)) return { outcome: 'applied', status }
  if (text === '{}') delete status.attributes
  else status.attributes = attributes
  status.rev++
  return { outcome: 'applied', status }
}
