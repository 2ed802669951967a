import { MAX_ATTRIBUTES_BYTES, mergePatch } from '../contract/attributes.ts'
import type { JsonObject } from '../contract/json.ts'
import type { Connection } from '../contract/record.ts'
import { MAX_SEQUENCE_RANGES } from '../contract/status.ts'
import { isoTime } from '../contract/time.ts'
import { isAt, type Outcome, type Write } from '../contract/write.ts'
import type { Decoded } from './decode.ts'
import { HeldStatus, heldValue } from './held-status.ts'
import type { Reading } from './message.ts'

/**
 * The status of `deviceId` after one more record. Pure: no clock, no random, no I/O; what it is given decides all.
 * It takes `status` over and may change it in place; the caller keeps no other use of it.
 * Returns undefined while the device has never reported, or not since it was deleted: a connection alone does not make a
 * device, or every tool that connects with an id of its own making would stay in the fleet for good.
 */
export function fold(
  status: HeldStatus | undefined,
  deviceId: string,
  record: Exclude<Decoded, { kind: 'rejected' }>,
): HeldStatus | undefined {
  if (record.kind === 'connection') {
    if (status !== undefined) foldConnection(status, record.connection, record.receivedAt)
    return status
  }
  if (record.kind === 'write') return decide(status, record.write).status
  // A takeover publishes the old session's will after the new session has begun.
  if (record.will !== undefined && status !== undefined && record.will < status.session) return status
  const receivedAt = isoTime(record.receivedAt)
  let folded = status
  for (const reading of record.readings) {
    folded ??= new HeldStatus(deviceId, receivedAt)
    foldReading(folded, reading, receivedAt)
  }
  return folded
}

function foldConnection(status: HeldStatus, { state, reason, session }: Connection, receivedAt: number): void {
  if (session < status.session) return
  // Within a session only its end can follow, and nothing after the end is news.
  if (session === status.session && (status.state !== 'online' || state === 'online')) return
  if (state !== status.state) status.since = isoTime(receivedAt)
  status.state = state
  status.reason = reason
  status.session = session
  status.rev++
}

function foldReading(status: HeldStatus, { names, values, seq, at: ownAt, skewed }: Reading, receivedAt: string): void {
  if (seq !== undefined && !admit(status, seq, ownAt)) {
    status.duplicates++
    return
  }
  const at = ownAt ?? receivedAt
  let late = false
  for (let i = 0; i < names.length; i++) {
    const name = names[i] as string
    // A device mostly names its metrics in one order.
    let place = status.shape.names[i] === name ? i : status.shape.places.get(name)
    if (place === undefined) {
      status.widen(names)
      place = status.shape.places.get(name) as number
    }
    // ISO 8601 of one form and four-digit years compare as text; at a tie the later offset wins.
    if ((status.ats[place] as string) <= at) {
      status.values[place] = heldValue(values[i] as Reading['values'][number])
      status.ats[place] = at
    } else {
      late = true
    }
  }
  status.rev++
  status.messages++
  if (late) status.late++
  if (skewed) status.skewed++
  // Gateways' clocks differ, so the receipt time may step back.
  if (receivedAt > status.lastSeenAt) status.lastSeenAt = receivedAt
  if (receivedAt < status.firstSeenAt) status.firstSeenAt = receivedAt
}

/**
 * Decides a write, and returns the status after it. A write makes no device, as only telemetry does. A deletion leaves
 * nothing: later telemetry makes the device anew, and its `rev` starts again.
 */
export function decide(
  status: HeldStatus | undefined,
  write: Write,
): { readonly outcome: Outcome; readonly status: HeldStatus | undefined } {
  if (status === undefined) return { outcome: 'unknown-device', status }
  if (write.ifMatch !== undefined && !isAt(status, write.ifMatch)) return { outcome: 'stale', status }
  if (write.kind === 'deletion') return { outcome: 'applied', status: undefined }
  const old = status.attributes ?? '{}'
  const merges = write.operation === 'merge'
  const text = JSON.stringify(merges ? mergePatch(JSON.parse(old) as JsonObject, write.attributes) : write.attributes)
  if (Buffer.byteLength(text) > MAX_ATTRIBUTES_BYTES) return { outcome: 'attributes-too-large', status }
  if (text === old) return { outcome: 'applied', status }
  status.attributes = text === '{}' ? undefined : text
  status.rev++
  return { outcome: 'applied', status }
}

/** Marks `seq` as applied. False when it was applied before. */
function admit(status: HeldStatus, seq: number, at: string | undefined): boolean {
  const { seen } = status
  if (seen.length === 0) {
    status.seen = [seq, seq]
  } else if (!includes(seen, seq)) {
    insert(seen, seq)
  } else if (restarted(status, seq, at)) {
    status.seen = [seq, seq]
  } else {
    return false
  }
  if (at !== undefined && (status.sequenceAt === undefined || at > status.sequenceAt)) status.sequenceAt = at
  status.sequenceSession = status.session
  return true
}

/**
 * A device that lost its memory counts from the start again, and what it says is new. A duplicate repeats its own time,
 * so a number seen before with a time newer than any before it is no duplicate. Without times, a count that starts again
 * at 0 or 1 in a new session is taken for a restart.
 */
function restarted(
  { seen, session, sequenceAt, sequenceSession }: HeldStatus,
  seq: number,
  at: string | undefined,
): boolean {
  if (at !== undefined) return sequenceAt !== undefined && at > sequenceAt
  return seq <= 1 && (seen.at(-1) as number) > 1 && session > sequenceSession
}

/** `seen`: the first and the last number of each range. */
function includes(seen: readonly number[], seq: number): boolean {
  for (let last = seen.length - 1; last > 0; last -= 2) {
    if (seq > (seen[last] as number)) return false
    if (seq >= (seen[last - 1] as number)) return true
  }
  return false
}

/** Adds a number that is in none of the ranges, joining neighbours. */
function insert(seen: number[], seq: number): void {
  let next = seen.length
  while (next > 0 && (seen[next - 2] as number) > seq) next -= 2
  const joinsBelow = seen[next - 1] === seq - 1
  const joinsAbove = seen[next] === seq + 1
  if (joinsBelow && joinsAbove) {
    seen.splice(next - 1, 2)
  } else if (joinsBelow) {
    seen[next - 1] = seq
  } else if (joinsAbove) {
    seen[next] = seq
  } else {
    seen.splice(next, 0, seq, seq)
    if (seen.length > 2 * MAX_SEQUENCE_RANGES) seen.splice(0, 2)
  }
}
