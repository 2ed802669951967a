import assert from 'node:assert/strict'
import type { LogRecord, Offset } from '../../processor/contract/record.ts'
import { decodeStatus, type Status } from '../../processor/contract/status.ts'
import { type Write } from '../../processor/contract/write.ts'
import { HEADER_INPUT } from '../../processor/partition/commit.ts'
import { decodeRecord } from '../../processor/status/decode.ts'
import { modelDecide, modelFold, statusText } from '../status-model.ts'

/** Statuses by device id, as text. */
export type Statuses = ReadonlyMap<string, string>

/** What a reader was told, and the input offset that was committed by then. */
export interface Seen {
  readonly partition: number
  readonly deviceId: string
  readonly status: string | undefined
  readonly offset: Offset
  readonly committed: Offset
}

/** The input of one partition, and what it must come to: by the fold alone, without tasks, stores and changelogs. */
export class Expected {
  readonly input: readonly LogRecord[]
  /** After how many records of the input each device has which status. */
  readonly #history = new Map<string, { readonly after: Offset; readonly status: string | undefined }[]>()
  readonly rejected: number

  constructor(input: readonly LogRecord[]) {
    this.input = input
    const statuses = new Map<string, Status | undefined>()
    let rejected = 0
    for (const record of input) {
      const decoded = decodeRecord(record)
      if (decoded.kind === 'rejected') {
        rejected++
        continue
      }
      const deviceId = record.key as string
      const before = statuses.get(deviceId)
      let status: Status | undefined
      if (decoded.kind === 'write') {
        const decision = modelDecide(before, decoded.write)
        status = decision.status
        if (decision.outcome !== 'applied' && becomesDeadLetter(decoded.write)) rejected++
      } else {
        status = modelFold(before, deviceId, decoded)
      }
      statuses.set(deviceId, status)
      const history = this.#history.get(deviceId) ?? []
      history.push({ after: record.offset + 1, status: status === undefined ? undefined : statusText(status) })
      this.#history.set(deviceId, history)
    }
    this.rejected = rejected
  }

  at(input: Offset): Statuses {
    const statuses = new Map<string, string>()
    for (const deviceId of this.#history.keys()) {
      const status = this.statusAt(deviceId, input)
      if (status !== undefined) statuses.set(deviceId, status)
    }
    return statuses
  }

  statusAt(deviceId: string, input: Offset): string | undefined {
    return this.#history.get(deviceId)?.findLast(({ after }) => after <= input)?.status
  }

  /** Each answer is what the device was at some point between what it claims to hold and what was committed. */
  checkSeen({ deviceId, status, offset, committed }: Seen): void {
    for (let input = offset; input <= Math.max(offset, committed); input++) {
      if (this.statusAt(deviceId, input) === status) return
    }
    assert.fail(`${deviceId} was answered as ${status}, which it never was from input ${offset} to ${committed}`)
  }
}

/** Whoever makes a write conditional learns its outcome, and a deletion of nothing changes nothing. */
function becomesDeadLetter({ kind, ifMatch }: Write): boolean {
  return kind === 'attributes' && ifMatch === undefined
}

/** Every commit, as the changelog tells of it, holds all effects of the input before it, once. */
export function checkCommits(changelog: readonly LogRecord[], expected: Expected): void {
  const statuses = new Map<string, string>()
  let last = 0
  for (const { key, value, headers, offset } of changelog) {
    if (value === null) statuses.delete(key as string)
    else statuses.set(key as string, canonical(value))
    const input = headers?.[HEADER_INPUT]
    if (input === undefined) continue
    assert(Number(input) >= last, `changelog ${offset}: the committed input went back from ${last} to ${input}`)
    last = Number(input)
    same(statuses, expected.at(last), `changelog ${offset}, committed with input ${last}`)
  }
}

/** What a reader of the changelog holds who read it from the start to `end`. */
export function replay(changelog: readonly LogRecord[], end: Offset): Statuses {
  const statuses = new Map<string, string>()
  for (const { key, value, offset } of changelog) {
    if (offset >= end) break
    if (value === null) statuses.delete(key as string)
    else statuses.set(key as string, canonical(value))
  }
  return statuses
}

export function canonical(value: Uint8Array): string {
  return statusText(decodeStatus(value))
}

export function same(actual: Statuses, expected: Statuses, what: string): void {
  for (const id of new Set([...actual.keys(), ...expected.keys()])) {
    assert.equal(actual.get(id), expected.get(id), `${what}: device ${id}`)
  }
}
