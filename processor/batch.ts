import { CorruptedError } from './contract/errors.ts'
import { fold } from './contract/fold.ts'
import { type Indexed, indexedOf, isSamePlace, isSameSlot, type Move } from './contract/index-entries.ts'
import { advance, PlainEncoder, type PlainStatus, plainBound, plainOf, statusOf } from './contract/plain.ts'
import { decodePlain } from './contract/plain-decoder.ts'
import { decodeStatus, encodeStatus, MAX_STATUS_BYTES, type Status, statusText } from './contract/status.ts'
import { type Decoded, deadLetter, decodeRecord, type RejectionReason } from './contract/telemetry.ts'
import { decide, type Outcome, type Write } from './contract/write.ts'
import { type Decision, decidedHeader } from './decisions.ts'
import type { Headers, LogRecord, NewRecord } from './log/log.ts'
import type { CachedStatus, StatusCache } from './store/cache.ts'
import type { StateStore } from './store/store.ts'
import type { TextCache } from './store/texts.ts'
import type { Turn } from './turns.ts'

/** Statuses read from the store at a time: what is decoded of them at once stays short. */
const READ_KEYS = 512

/** What one batch of telemetry comes to: to be committed whole, or not at all. */
export interface Effects {
  /** One record per device that changed, or was to be changed by a write; a tombstone for one that is no more. */
  readonly changelog: NewRecord[]
  /** By device id; null: it is no more. */
  readonly writes: Map<string, Uint8Array | null>
  readonly deadLetters: NewRecord[]
  readonly rejections: RejectionReason[]
  readonly decisions: Decision[]
  /** What changes of the indexes. */
  readonly moves: Move[]
  /** Devices that came to be, less those that went. */
  added: number
}

export interface BatchContext {
  readonly partition: number
  readonly store: StateStore
  readonly cache: StatusCache
  readonly texts: TextCache
  readonly turn: Turn
  /** Whose entries of the cache may be used, and the number of this batch among its own, growing. */
  readonly owner: object
  readonly batch: number
}

/** A device that the batch speaks of. */
interface Touched {
  readonly deviceId: string
  entry: CachedStatus | undefined
  /** What the entry holds, as long as it can do what the batch asks for; then `status` is used. */
  plain: PlainStatus | undefined
  status: Status | undefined
  existed: boolean
  /** What was indexed before the batch; of a plain status, `lastSeenAt` is all that can change. */
  before: Indexed | undefined
  lastSeenAt: string
  /** It was deleted in the batch, and may have come to be again. */
  deleted: boolean
  /** The writes to it in the batch, in order. */
  writes: DecidedWrite[] | undefined
  /** `rev` and `counters.duplicates` before the batch: neither grows when nothing changes. */
  rev: number
  duplicates: number
}

interface DecidedWrite {
  readonly record: LogRecord
  readonly write: Write
  outcome: Outcome
}

/** Folds a batch. The statuses in the cache that it touched carry its number, and must not be shown before it is stored. */
export async function foldBatch(records: readonly LogRecord[], context: BatchContext): Promise<Effects> {
  const { turn } = context
  const effects = noEffects()
  const devices = new Map<string, Touched>()
  const missing: Touched[] = []
  const decoded: Decoded[] = []
  const touched: (Touched | undefined)[] = []
  for (const record of records) {
    const it = decodeRecord(record)
    decoded.push(it)
    if (it.kind === 'rejected') {
      touched.push(undefined)
      reject(effects, it.reason, record, context.partition)
    } else {
      touched.push(touch(record.key as string, devices, missing, context))
    }
    if (turn.spend(record.value?.byteLength ?? 0)) await turn.next()
  }
  for (let i = 0; i < missing.length; i += READ_KEYS) await load(missing.slice(i, i + READ_KEYS), context)
  // Of the last record that was accepted: the time of another may be any 64 bits, and the changelog must take it.
  let timestamp = 0
  for (let i = 0; i < decoded.length; i++) {
    const it = decoded[i] as Decoded
    const device = touched[i]
    if (it.kind === 'rejected' || device === undefined) continue
    begun(device, context)
    const record = records[i] as LogRecord
    apply(device, it, record, turn)
    timestamp = record.timestamp
    if (turn.spend(0)) await turn.next()
  }
  const encoder = new PlainEncoder()
  let left = devices.size
  for (const device of devices.values()) {
    left--
    if (!changed(device)) continue
    let image = imageOf(device)
    let value: Uint8Array | undefined =
      typeof image === 'object' ? encoder.encode(image, left) : image === undefined ? undefined : Buffer.from(image)
    if (value !== undefined && value.byteLength > MAX_STATUS_BYTES) {
      value = await refold(device, records, decoded, touched, effects, context)
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

function noEffects(): Effects {
  return { changelog: [], writes: new Map(), deadLetters: [], rejections: [], decisions: [], moves: [], added: 0 }
}

/** The work of decoding counts in the turn; whether that is over, what is spent next tells. */
function touch(id: string, devices: Map<string, Touched>, missing: Touched[], context: BatchContext): Touched {
  const known = devices.get(id)
  if (known !== undefined) return known
  const entry = context.cache.get(id, context.owner)
  const device: Touched = {
    deviceId: id,
    entry,
    plain: undefined,
    status: undefined,
    existed: false,
    before: undefined,
    lastSeenAt: '',
    deleted: false,
    writes: undefined,
    rev: 0,
    duplicates: 0,
  }
  if (entry === undefined) {
    missing.push(device)
  } else if (typeof entry.image === 'string') {
    begin(device, JSON.parse(entry.image) as Status)
    context.turn.spend(entry.bytes)
  } else {
    beginPlain(device, entry.image)
  }
  devices.set(id, device)
  return device
}

/** From here on the cache does not hold what is committed. */
function begun({ deviceId, entry }: Touched, { texts, batch }: BatchContext): void {
  if (entry?.batch === batch) return
  if (entry !== undefined) entry.batch = batch
  texts.forget(deviceId)
}

function begin(device: Touched, status: Status): void {
  device.status = status
  device.existed = true
  device.before = indexedOf(status)
  device.rev = status.rev
  device.duplicates = status.counters.duplicates
}

function beginPlain(device: Touched, plain: PlainStatus): void {
  device.plain = plain
  device.existed = true
  device.lastSeenAt = plain.lastSeenAt
  device.rev = plain.rev
  device.duplicates = plain.duplicates
}

/** As it is kept in the cache. Undefined: there is no device. */
function imageOf({ plain, status }: Touched): PlainStatus | string | undefined {
  if (plain !== undefined || status === undefined) return plain
  return plainOf(status) ?? statusText(status)
}

async function load(devices: readonly Touched[], context: BatchContext): Promise<void> {
  const values = await context.store.getMany(devices.map((device) => device.deviceId))
  for (let i = 0; i < devices.length; i++) {
    const device = devices[i] as Touched
    const bytes = values[i]
    if (bytes === undefined) continue
    const plain = decodePlain(device.deviceId, bytes)
    if (plain === undefined) begin(device, stored(device.deviceId, bytes))
    else beginPlain(device, plain)
    if (context.turn.spend(bytes.byteLength)) await context.turn.next()
  }
}

function stored(deviceId: string, bytes: Uint8Array): Status {
  try {
    return decodeStatus(bytes)
  } catch (cause) {
    throw new CorruptedError('STORE_CORRUPTED', `the stored status of device ${deviceId} is not JSON`, cause)
  }
}

/** Counts as `touch` does. */
function apply(device: Touched, it: Exclude<Decoded, { kind: 'rejected' }>, record: LogRecord, turn: Turn): void {
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
  const { outcome, status } = decide(device.status, it.write)
  device.status = status
  if (status === undefined && outcome === 'applied') device.deleted = true
  device.writes ??= []
  device.writes.push({ record, write: it.write, outcome })
}

/** A write that changed nothing has an outcome nonetheless, and the changelog tells it. */
function changed({ plain, status, existed, deleted, writes, rev, duplicates }: Touched): boolean {
  if (plain !== undefined) return plain.rev !== rev
  if (writes !== undefined) return true
  if (status === undefined) return existed
  return !existed || deleted || status.rev !== rev || status.counters.duplicates !== duplicates
}

function write(
  device: Touched,
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
function remove(device: Touched, effects: Effects, context: BatchContext): void {
  const { deviceId, existed } = device
  effects.writes.set(deviceId, null)
  move(device, effects)
  if (existed) effects.added--
  context.cache.delete(deviceId)
}

function move({ deviceId, plain, status, before, lastSeenAt }: Touched, { moves }: Effects): void {
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

/** What a conditional write was refused for is told to its writer; another one's refusal would be seen by nobody. */
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
 * The device's status grew over its bound within the batch: from the committed status on, again, record by record, and
 * each record that makes it too large is left out. Slow and rare. The bytes of what results; undefined: no device.
 */
async function refold(
  device: Touched,
  records: readonly LogRecord[],
  decoded: readonly Decoded[],
  touched: readonly (Touched | undefined)[],
  effects: Effects,
  context: BatchContext,
): Promise<Uint8Array | undefined> {
  const { deviceId } = device
  context.cache.delete(deviceId)
  const [committed] = await context.store.getMany([deviceId])
  let kept = committed
  Object.assign(device, { entry: undefined, plain: undefined, deleted: false, writes: undefined })
  device.status = kept === undefined ? undefined : stored(deviceId, kept)
  for (let i = 0; i < records.length; i++) {
    const it = decoded[i] as Decoded
    if (touched[i] !== device || it.kind === 'rejected') continue
    const record = records[i] as LogRecord
    apply(device, it, record, context.turn)
    const value = device.status === undefined ? undefined : encodeStatus(device.status)
    if (value === undefined || value.byteLength <= MAX_STATUS_BYTES) {
      kept = value
    } else {
      device.status = kept === undefined ? undefined : stored(deviceId, kept)
      const last = device.writes?.at(-1)
      if (last?.record === record) last.outcome = 'status-too-large'
      else reject(effects, 'status-too-large', record, context.partition)
    }
    if (context.turn.spend(value?.byteLength ?? 0)) await context.turn.next()
  }
  return kept
}
