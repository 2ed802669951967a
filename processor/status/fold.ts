import type { Connection } from '../contract/record.ts'
import { type Counters, MAX_SEQUENCE_RANGES, type Sequence, type Status } from '../contract/status.ts'
import { isoTime } from '../contract/time.ts'
import { decide } from '../contract/write.ts'
import type { Decoded } from './decode.ts'
import type { Reading } from './message.ts'

/**
 * The status of `deviceId` after one more record. Pure: no clock, no random, no I/O; what it is given decides all.
 * It takes `status` over and may change it in place; the caller keeps no other use of it.
 * Returns undefined while the device has never reported, or not since it was deleted: a connection alone does not make a
 * device, or every tool that connects with an id of its own making would stay in the fleet for good.
 */
export function fold(
  status: Status | undefined,
  deviceId: string,
  record: Exclude<Decoded, { kind: 'rejected' }>,
): Status | undefined {
  if (record.kind === 'connection') {
    return status === undefined ? undefined : foldConnection(status, record.connection, record.receivedAt)
  }
  if (record.kind === 'write') return decide(status, record.write).status
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
