import { UnavailableError } from '../../processor/contract/errors.ts'
import { bufferOf, type Listing, type StatusReader } from '../../processor/contract/query.ts'
import type { Offset } from '../../processor/contract/record.ts'
import { decodeStatus } from '../../processor/contract/status.ts'
import { type Caller, maySee, visibleAfter } from '../auth/caller.ts'
import type { ChangelogFollower, Subject } from './changelog-follower.ts'

/** Pause between two attempts to read a partition that nobody answers for, ms. */
const RETRY_MS = 250

export type SnapshotReader = Pick<StatusReader, 'get' | 'listPartition'>

export interface SnapshotOptions {
  readonly following: ChangelogFollower
  readonly reader: SnapshotReader
  readonly caller: Caller
  readonly subject: Subject
  readonly partition: number
}

export interface Entering {
  readonly deviceId: string
  readonly number: number | undefined
  readonly text: string
}

export interface SnapshotPage {
  readonly devices: readonly Entering[]
  /**
   * Offset in the changelog up to which this page includes everything. Following from the least offset of all pages
   * misses nothing; a change may come twice.
   */
  readonly reached: Offset
}

/** Yields the matching devices of a partition from one of its copies. Rejects with UnavailableError. */
export async function* readSnapshot(options: SnapshotOptions): AsyncGenerator<SnapshotPage> {
  const { following, reader, caller, subject, partition } = options
  if ('deviceId' in subject) {
    const { status, freshness } = await ask(following, () => reader.get(subject.deviceId))
    yield {
      devices: status === undefined ? [] : [device(subject.deviceId, bufferOf(status))],
      reached: freshness.changelog,
    }
    return
  }
  let after: string | undefined
  for (;;) {
    const from = visibleAfter(caller, after)
    if (from === null) return
    const page = await ask(following, () => reader.listPartition(partition, from, following.limits.snapshotPage))
    const devices = await matching(page)
    yield { devices, reached: page.freshness.changelog }
    const last = page.items.at(-1)
    if (last === undefined) return
    after = last.deviceId
  }

  async function matching({ items }: Listing): Promise<Entering[]> {
    const { matcher } = subject as Exclude<Subject, { deviceId: string }>
    const devices: Entering[] = []
    for (const { deviceId, status } of items) {
      if (!maySee(caller, deviceId)) continue
      if (matcher === undefined || matcher.matches(decodeStatus(status))) devices.push(device(deviceId, status))
      const turn = following.spend(status.byteLength + (matcher?.takeWork() ?? 0))
      if (turn !== undefined) await turn
    }
    return devices
  }

  function device(deviceId: string, status: Uint8Array): Entering {
    return { deviceId, number: following.numbers.of(deviceId), text: Buffer.from(status).toString('utf8') }
  }
}

async function ask<T>({ clock, limits, snapshots }: ChangelogFollower, question: () => Promise<T>): Promise<T> {
  const began = clock.steady()
  for (;;) {
    try {
      return await snapshots.run(question)
    } catch (error) {
      if (!(error instanceof UnavailableError) || clock.steady() - began > limits.snapshotPatienceMs) throw error
    }
    await new Promise<void>((resolve) => void clock.after(RETRY_MS, resolve))
  }
}
