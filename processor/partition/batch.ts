import { deadLetter, type RejectionReason } from '../contract/dead-letter.ts'
import { MAX_STATUS_BYTES } from '../contract/status.ts'
import type { Headers, LogRecord, NewRecord } from '../log/log.ts'
import type { Turn } from '../runtime/turns.ts'
import { type Decoded, decodeRecord } from '../status/decode.ts'
import { decide, fold } from '../status/fold.ts'
import type { HeldStatus } from '../status/held-status.ts'
import { indexedOf, isSamePlace, type Move } from '../store/index-entries.ts'
import { type BatchContext, type BatchDevice, BatchDevices, type DecidedWrite, decodeStored } from './batch-devices.ts'
import { type Decision, decidedHeader } from './waiters.ts'

/** A write copies all attributes and compares them as JSON: 0.4 ms for 8 KiB of small ones. Work for each byte of them. */
const ATTRIBUTES_WORK = 16
/** Work of a rejected record, in bytes: an error of `JSON.parse`, with its text and stack, takes 5 to 11 µs. */
const REJECTED_WORK = 1024

/** What a folded batch changes: committed whole, or not at all. */
export interface Effects {
  /** How many records were folded; the rest of the batch waits for the next commit. */
  readonly records: number
  /** JSON bytes of the statuses before the batch. */
  readonly bytes: number
  /** Ids of devices whose stored value was no status. */
  readonly foreign: string[]
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
  const deviceOf: (BatchDevice | undefined)[] = []
  for (const { key, value } of records) {
    deviceOf.push(key === null ? undefined : devices.add(key))
    bytes += value?.byteLength ?? 0
    if (turn.spend(0)) await turn.next()
    if (devices.full || bytes > maxCommitBytes) break
  }
  const left = await devices.load()
  if (left !== undefined) deviceOf.length = deviceOf.indexOf(left)
  const effects = noEffects(deviceOf.length, devices.bytes)
  // Only of accepted records: a rejected one may have any 64 bits as its time, which the changelog could not take.
  let timestamp = 0
  for (let i = 0; i < deviceOf.length; i++) {
    const record = records[i] as LogRecord
    // Records are decoded one by one, so that what is made of each is garbage before the next minor collection.
    const it = decodeRecord(record)
    if (it.kind === 'rejected') {
      reject(effects, it.reason, record, context.partition)
      turn.spend(REJECTED_WORK)
    } else {
      const device = deviceOf[i] as BatchDevice
      markUncommitted(device, context)
      apply(device, it, record, turn)
      timestamp = record.timestamp
    }
    if (turn.spend(record.value?.byteLength ?? 0)) await turn.next()
  }
  for (const device of devices.all.values()) {
    if (!device.touched || !changed(device)) continue
    if (device.foreign) effects.foreign.push(device.deviceId)
    let value: Uint8Array | undefined = device.status?.encode()
    if (value !== undefined && value.byteLength > MAX_STATUS_BYTES) {
      value = await refold(device, records, deviceOf, effects, context)
      if (!changed(device)) continue
    }
    const headers = device.writes === undefined ? undefined : settle(device.writes, effects, context)
    effects.changelog.push({ key: device.deviceId, value: value ?? null, timestamp, headers })
    if (device.status === undefined || value === undefined) remove(device, effects, context)
    else write(device, device.status, value, effects, context)
    if (turn.spend(value?.byteLength ?? 0)) await turn.next()
  }
  return effects
}

function noEffects(records: number, bytes: number): Effects {
  const none = {
    foreign: [],
    changelog: [],
    writes: new Map(),
    deadLetters: [],
    rejections: [],
    decisions: [],
    moves: [],
  }
  return { ...none, records, bytes, added: 0 }
}

/** From here on the cached status differs from the committed one. */
function markUncommitted(device: BatchDevice, { batch }: BatchContext): void {
  if (device.touched) return
  device.touched = true
  if (device.entry === undefined) return
  device.entry.batch = batch
  device.entry.json = undefined
}

/** Applies one record to the status. The caller sees at its next `spend` whether the turn is over. */
function apply(device: BatchDevice, it: Exclude<Decoded, { kind: 'rejected' }>, record: LogRecord, turn: Turn): void {
  if (it.kind !== 'write') {
    device.status = fold(device.status, device.deviceId, it)
    return
  }
  if (it.write.kind === 'attributes')
    turn.spend(ATTRIBUTES_WORK * ((device.status?.attributes?.length ?? 0) + (record.value?.byteLength ?? 0)))
  const { outcome, status } = decide(device.status, it.write)
  device.status = status
  if (status === undefined && outcome === 'applied') device.deleted = true
  device.writes ??= []
  device.writes.push({ record, write: it.write, outcome })
}

/** Also true for a write that changed nothing: the changelog tells its outcome. */
function changed({ status, existed, deleted, writes, rev, duplicates }: BatchDevice): boolean {
  if (writes !== undefined) return true
  if (status === undefined) return existed
  return !existed || deleted || status.rev !== rev || status.duplicates !== duplicates
}

function write(
  device: BatchDevice,
  status: HeldStatus,
  value: Uint8Array,
  effects: Effects,
  context: BatchContext,
): void {
  effects.writes.set(device.deviceId, value)
  move(device, effects)
  if (!device.existed) effects.added++
  if (device.entry === undefined) {
    context.cache.add(status, context.owner, context.batch, value.byteLength)
  } else {
    device.entry.status = status
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

function move({ deviceId, status, before }: BatchDevice, { moves }: Effects): void {
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
  deviceOf: readonly (BatchDevice | undefined)[],
  effects: Effects,
  context: BatchContext,
): Promise<Uint8Array | undefined> {
  const { deviceId } = device
  context.cache.delete(deviceId)
  const [committed] = await context.store.getMany([deviceId])
  let kept = committed === undefined || decodeStored(deviceId, committed, context) === undefined ? undefined : committed
  Object.assign(device, { entry: undefined, deleted: false, writes: undefined })
  device.status = kept === undefined ? undefined : decodeStored(deviceId, kept, context)
  for (let i = 0; i < records.length; i++) {
    if (deviceOf[i] !== device) continue
    const record = records[i] as LogRecord
    const it = decodeRecord(record)
    if (it.kind === 'rejected') continue
    apply(device, it, record, context.turn)
    const value = device.status?.encode()
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
