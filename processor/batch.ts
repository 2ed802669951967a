import { CorruptedError } from './contract/errors.ts'
import { fold } from './contract/fold.ts'
import { decodeStatus, encodeStatus, MAX_STATUS_BYTES, type Status, statusText } from './contract/status.ts'
import { type Decoded, deadLetter, decodeRecord, type RejectionReason } from './contract/telemetry.ts'
import type { LogRecord, NewRecord } from './log/log.ts'
import type { CachedStatus, StatusCache } from './store/cache.ts'
import type { StateStore } from './store/store.ts'
import type { Turn } from './turns.ts'

/** Statuses read from the store at a time: what is decoded of them at once stays short. */
const READ_KEYS = 512

/** What one batch of telemetry comes to: to be committed whole, or not at all. */
export interface Effects {
  /** One record per device that changed. */
  readonly changelog: NewRecord[]
  readonly writes: Map<string, Uint8Array>
  readonly deadLetters: NewRecord[]
  readonly rejections: RejectionReason[]
  /** Devices that came to be. */
  added: number
}

export interface BatchContext {
  readonly partition: number
  readonly store: StateStore
  readonly cache: StatusCache
  readonly turn: Turn
  /** Whose entries of the cache may be used, and the number of this batch among its own, growing. */
  readonly owner: object
  readonly batch: number
}

/** A device that the batch speaks of. */
interface Touched {
  readonly deviceId: string
  entry: CachedStatus | undefined
  status: Status | undefined
  existed: boolean
  /** `rev` and `counters.duplicates` before the batch: neither grows when nothing changes. */
  rev: number
  duplicates: number
}

/** Folds a batch. The statuses in the cache that it touched carry its number, and must not be shown before it is stored. */
export async function foldBatch(records: readonly LogRecord[], context: BatchContext): Promise<Effects> {
  const { turn } = context
  const effects: Effects = { changelog: [], writes: new Map(), deadLetters: [], rejections: [], added: 0 }
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
  for (let i = 0; i < decoded.length; i++) {
    const it = decoded[i] as Decoded
    const device = touched[i]
    if (it.kind === 'rejected' || device === undefined) continue
    if (device.entry !== undefined) device.entry.batch = context.batch
    device.status = fold(device.status, device.deviceId, it)
    if (turn.spend(0)) await turn.next()
  }
  const timestamp = records.at(-1)?.timestamp ?? 0
  for (const device of devices.values()) {
    if (!changed(device)) continue
    let text = statusText(device.status as Status)
    let value: Buffer = Buffer.from(text)
    if (value.byteLength > MAX_STATUS_BYTES) {
      const kept = await refold(device, records, decoded, touched, effects, context)
      if (kept === undefined) continue
      value = kept
      text = kept.toString()
    }
    write(device, text, value, timestamp, effects, context)
    if (turn.spend(value.byteLength)) await turn.next()
  }
  return effects
}

function touch(id: string, devices: Map<string, Touched>, missing: Touched[], context: BatchContext): Touched {
  const known = devices.get(id)
  if (known !== undefined) return known
  const entry = context.cache.get(id, context.owner)
  const device: Touched = { deviceId: id, entry, status: undefined, existed: false, rev: 0, duplicates: 0 }
  if (entry === undefined) missing.push(device)
  else begin(device, JSON.parse(entry.text) as Status)
  devices.set(id, device)
  return device
}

function begin(device: Touched, status: Status): void {
  device.status = status
  device.existed = true
  device.rev = status.rev
  device.duplicates = status.counters.duplicates
}

async function load(devices: readonly Touched[], context: BatchContext): Promise<void> {
  const values = await context.store.getMany(devices.map((device) => device.deviceId))
  for (let i = 0; i < devices.length; i++) {
    const device = devices[i] as Touched
    const bytes = values[i]
    if (bytes === undefined) continue
    begin(device, stored(device.deviceId, bytes))
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

function changed({ status, existed, rev, duplicates }: Touched): boolean {
  return status !== undefined && !(existed && status.rev === rev && status.counters.duplicates === duplicates)
}

function write(
  device: Touched,
  text: string,
  value: Buffer,
  timestamp: number,
  effects: Effects,
  context: BatchContext,
): void {
  const { deviceId } = device
  effects.changelog.push({ key: deviceId, value, timestamp, headers: undefined })
  effects.writes.set(deviceId, value)
  if (!device.existed) effects.added++
  if (device.entry === undefined) {
    context.cache.add(deviceId, context.owner, text, context.batch, value.byteLength)
  } else {
    device.entry.text = text
    context.cache.resize(device.entry, value.byteLength)
  }
}

function reject(effects: Effects, reason: RejectionReason, record: LogRecord, partition: number): void {
  effects.deadLetters.push(deadLetter(reason, record, { partition, offset: record.offset }))
  effects.rejections.push(reason)
}

/**
 * The device's status grew over its bound within the batch: from the committed status on, again, record by record, and
 * each record that makes it too large is left out. Slow and rare. The bytes of what results; undefined: no change.
 */
async function refold(
  device: Touched,
  records: readonly LogRecord[],
  decoded: readonly Decoded[],
  touched: readonly (Touched | undefined)[],
  effects: Effects,
  context: BatchContext,
): Promise<Buffer | undefined> {
  const { deviceId } = device
  context.cache.delete(deviceId)
  device.entry = undefined
  const [committed] = await context.store.getMany([deviceId])
  device.status = committed === undefined ? undefined : stored(deviceId, committed)
  let kept: Buffer | undefined
  for (let i = 0; i < records.length; i++) {
    const it = decoded[i] as Decoded
    if (touched[i] !== device || it.kind === 'rejected') continue
    const next = fold(device.status, deviceId, it)
    const value = next === undefined ? undefined : encodeStatus(next)
    if (value === undefined || value.byteLength <= MAX_STATUS_BYTES) {
      device.status = next
      kept = value
    } else {
      reject(effects, 'status-too-large', records[i] as LogRecord, context.partition)
      const last = kept ?? committed
      device.status = last === undefined ? undefined : stored(deviceId, last)
    }
    if (context.turn.spend(value?.byteLength ?? 0)) await context.turn.next()
  }
  return kept !== undefined && changed(device) ? kept : undefined
}
