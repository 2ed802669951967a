import { deadLetter, type RejectionReason } from '../contract/dead-letter.ts'
import { workOf } from '../contract/json.ts'
import { encodeStatus, MAX_STATUS_BYTES, statusText } from '../contract/status.ts'
import { decide } from '../contract/write.ts'
import type { Headers, LogRecord, NewRecord } from '../log/log.ts'
import type { Turn } from '../runtime/turns.ts'
import { type Decoded, decodeRecord } from '../status/decode.ts'
import { fold } from '../status/fold.ts'
import { advance, PlainEncoder, type PlainStatus, plainBound, plainOf, statusOf } from '../status/plain-status.ts'
import { indexedOf, isSamePlace, isSameSlot, type Move } from '../store/index-entries.ts'
import { type BatchContext, type BatchDevice, BatchDevices, type DecidedWrite, decodeStored } from './batch-devices.ts'
import { type Decision, decidedHeader } from './waiters.ts'

/** Work of a rejected record, in bytes: an error of `JSON.parse`, with its text and stack, takes 5 to 11 µs. */
const REJECTED_WORK = 1024

/** What a folded batch changes: committed whole, or not at all. */
export interface Effects {
  /** How many records were folded; the rest of the batch waits for the next commit. */
  readonly records: number
  /** JSON bytes of the statuses before the batch. */
  readonly bytes: number
  /** Ids of devices whose stored value was no status. */
  readonly foreign: readonly string[]
  /** One record per device that changed or that a write addressed; a tombstone for a deleted one. */
  readonly changelog: NewRecord[]
  /** Statuses by device id; null: deleted. */
  readonly writes: Map<string, Uint8Array | null>
  readonly deadLetters: NewRecord[]
  readonly rejections: RejectionReason[]
  readonly decisions: Decision[]
  /** Changes of the indexes. */
  readonly moves: Move[]
  /** Devices created less devices deleted. */
  added: number
}

/**
 * Folds a batch, or only its first records when the statuses are too large for one commit. Cached statuses that it changed
 * carry its number, and must not be shown before it is stored.
 */
export async function foldBatch(records: readonly LogRecord[], context: BatchContext): Promise<Effects> {
  const { turn, maxCommitBytes = Number.POSITIVE_INFINITY } = context
  let bytes = 0
  const devices = new BatchDevices(context)
  const decoded: Decoded[] = []
  const deviceOf: (BatchDevice | undefined)[] = []
  for (const record of records) {
    const it = decodeRecord(record)
    decoded.push(it)
    deviceOf.push(it.kind === 'rejected' ? undefined : devices.add(record.key as string))
    const work = it.kind === 'rejected' ? REJECTED_WORK : 0
    if (turn.spend(work + (record.value?.byteLength ?? 0))) await turn.next()
    bytes += record.value?.byteLength ?? 0
    if (devices.full || bytes > maxCommitBytes) break
  }
  const left = await devices.load()
  if (left !== undefined) deviceOf.length = deviceOf.indexOf(left)
  const effects = noEffects(deviceOf.length, devices)
  // Only of accepted records: a rejected one may have any 64 bits as its time, which the changelog could not take.
  let timestamp = 0
  for (let i = 0; i < deviceOf.length; i++) {
    const it = decoded[i] as Decoded
    const device = deviceOf[i]
    const record = records[i] as LogRecord
    if (it.kind === 'rejected' || device === undefined) {
      if (it.kind === 'rejected') reject(effects, it.reason, record, context.partition)
      if (turn.spend(0)) await turn.next()
      continue
    }
    markUncommitted(device, context)
    apply(device, it, record, turn)
    timestamp = record.timestamp
    if (turn.spend(0)) await turn.next()
  }
  const encoder = new PlainEncoder()
  let after = devices.all.size
  for (const device of devices.all.values()) {
    after--
    if (!changed(device)) continue
    let image = imageOf(device)
    let value: Uint8Array | undefined =
      typeof image === 'object' ? encoder.encode(image, after) : image === undefined ? undefined : Buffer.from(image)
    if (value !== undefined && value.byteLength > MAX_STATUS_BYTES) {
      value = await refold(device, records, decoded, deviceOf, effects, context)
      if (!changed(device)) continue
      image = imageOf(device)
    }
    const headers = device.writes === undefined ? undefined : settle(device.writes, effects, context)
    effects.changelog.push({ key: device.deviceId, value: value ?? null, timestamp, headers })
    if (image === undefined || value === undefined) remove(device, effects, context)
    else write(device, image, value, effects, context)
    if (turn.spend(value?.byteLength ?? 0)) await turn.next()
  }
  return effects
}

function noEffects(records: number, { bytes, foreign }: BatchDevices): Effects {
  const none = { changelog: [], writes: new Map(), deadLetters: [], rejections: [], decisions: [], moves: [], added: 0 }
  return { ...none, records, bytes, foreign }
}

/** From here on the cached status differs from the committed one. */
function markUncommitted({ deviceId, entry }: BatchDevice, { texts, batch }: BatchContext): void {
  if (entry?.batch === batch) return
  if (entry !== undefined) entry.batch = batch
  texts.forget(deviceId)
}

/** The form that the cache keeps; undefined: there is no device. */
function imageOf({ plain, status }: BatchDevice): PlainStatus | string | undefined {
  if (plain !== undefined || status === undefined) return plain
  return plainOf(status) ?? statusText(status)
}

/** Applies one record to the status. Counts work as `BatchDevices.add` does. */
function apply(device: BatchDevice, it: Exclude<Decoded, { kind: 'rejected' }>, record: LogRecord, turn: Turn): void {
  if (device.plain !== undefined) {
    if (advance(device.plain, it)) return
    const { lastSeenAt } = device
    device.status = statusOf(device.plain)
    turn.spend(plainBound(device.plain))
    device.before = { ...indexedOf(device.status), lastSeenAt }
    device.plain = undefined
  }
  if (it.kind !== 'write') {
    device.status = fold(device.status, device.deviceId, it)
    return
  }
  // A write to attributes copies them and compares them as JSON: 0.4 ms for 700 attributes.
  if (it.write.kind === 'attributes')
    turn.spend(workOf(device.status?.attributes ?? null) + workOf(it.write.attributes))
  const { outcome, status } = decide(device.status, it.write)
  device.status = status
  if (status === undefined && outcome === 'applied') device.deleted = true
  device.writes ??= []
  device.writes.push({ record, write: it.write, outcome })
}

/** Also true for a write that changed nothing: the changelog tells its outcome. */
function changed({ plain, status, existed, deleted, writes, rev, duplicates }: BatchDevice): boolean {
  if (plain !== undefined) return plain.rev !== rev
  if (writes !== undefined) return true
  if (status === undefined) return existed
  return !existed || deleted || status.rev !== rev || status.counters.duplicates !== duplicates
}

function write(
  device: BatchDevice,
  image: PlainStatus | string,
  value: Uint8Array,
  effects: Effects,
  context: BatchContext,
): void {
  const { deviceId } = device
  effects.writes.set(deviceId, value)
  move(device, effects)
  if (!device.existed) effects.added++
  if (device.entry === undefined) {
    context.cache.add(deviceId, context.owner, image, context.batch, value.byteLength)
  } else {
    device.entry.image = image
    context.cache.resize(device.entry, value.byteLength)
  }
}

/** Until the batch is in the store, readers find the committed status there. */
function remove(device: BatchDevice, effects: Effects, context: BatchContext): void {
  const { deviceId, existed } = device
  effects.writes.set(deviceId, null)
  move(device, effects)
  if (existed) effects.added--
  context.cache.delete(deviceId)
}

function move({ deviceId, plain, status, before, lastSeenAt }: BatchDevice, { moves }: Effects): void {
  if (plain !== undefined) {
    if (isSameSlot(lastSeenAt, plain.lastSeenAt)) return
    const { state } = plain
    const from = { state, lastSeenAt, attributes: undefined }
    moves.push({ deviceId, before: from, after: { ...from, lastSeenAt: plain.lastSeenAt } })
    return
  }
  const after = status === undefined ? undefined : indexedOf(status)
  if (!isSamePlace(before, after)) moves.push({ deviceId, before, after })
}

/** A conditional write's refusal is told to its writer. Nobody would see another one's, so that becomes a dead letter. */
function settle(writes: readonly DecidedWrite[], effects: Effects, { partition }: BatchContext): Headers {
  const decisions = writes.map(({ record, outcome }) => ({ offset: record.offset, outcome }))
  effects.decisions.push(...decisions)
  for (const {
    record,
    write: { kind, ifMatch },
    outcome,
  } of writes) {
    if (outcome === 'applied' || outcome === 'stale' || ifMatch !== undefined || kind === 'deletion') continue
    reject(effects, outcome, record, partition)
  }
  return decidedHeader(decisions)
}

function reject(effects: Effects, reason: RejectionReason, record: LogRecord, partition: number): void {
  effects.deadLetters.push(deadLetter(reason, record, { partition, offset: record.offset }))
  effects.rejections.push(reason)
}

/**
 * The status grew over its bound within the batch: folds the device's records again from the committed status, and leaves
 * out each one that makes it too large. Slow and rare. Resolves with the resulting JSON; undefined: no device.
 */
async function refold(
  device: BatchDevice,
  records: readonly LogRecord[],
  decoded: readonly Decoded[],
  deviceOf: readonly (BatchDevice | undefined)[],
  effects: Effects,
  context: BatchContext,
): Promise<Uint8Array | undefined> {
  const { deviceId } = device
  context.cache.delete(deviceId)
  const [committed] = await context.store.getMany([deviceId])
  let kept = committed === undefined || decodeStored(deviceId, committed, context) === undefined ? undefined : committed
  Object.assign(device, { entry: undefined, plain: undefined, deleted: false, writes: undefined })
  device.status = kept === undefined ? undefined : decodeStored(deviceId, kept, context)
  for (let i = 0; i < records.length; i++) {
    const it = decoded[i] as Decoded
    if (deviceOf[i] !== device || it.kind === 'rejected') continue
    const record = records[i] as LogRecord
    apply(device, it, record, context.turn)
    const value = device.status === undefined ? undefined : encodeStatus(device.status)
    if (value === undefined || value.byteLength <= MAX_STATUS_BYTES) {
      kept = value
    } else {
      device.status = kept === undefined ? undefined : decodeStored(deviceId, kept, context)
      const last = device.writes?.at(-1)
      if (last?.record === record) last.outcome = 'status-too-large'
      else reject(effects, 'status-too-large', record, context.partition)
    }
    if (context.turn.spend(value?.byteLength ?? 0)) await context.turn.next()
  }
  return kept
}
