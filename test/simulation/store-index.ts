import assert from 'node:assert/strict'
import { type IndexSink, indexedIn, reindex } from '../../processor/store/index-entries.ts'
import type { LevelStore } from '../../processor/store/level-store.ts'
import type { Disk } from './disk.ts'
import type { Statuses } from './oracle.ts'

/** What a store of an earlier version is like: its next process builds the index. */
export async function forgetIndex(disk: Disk): Promise<void> {
  for (const [partition, text] of await disk.entries('m')) {
    const { index: _, ...meta } = JSON.parse(text) as { readonly index?: number }
    await disk.content.put(Buffer.from(`m${partition}`), Buffer.from(JSON.stringify(meta)))
  }
}

/** An index that calls itself whole is what the statuses say, no more and no less. */
export async function checkIndex(
  store: LevelStore,
  disk: Disk,
  partition: number,
  statuses: Statuses,
  what: string,
): Promise<void> {
  if (store.index === undefined) return
  const prefix = `${String(partition).padStart(5, '0')}:`
  const entries = (await disk.entries(`i${prefix}`)).map(([entry]) => `i${entry}`)
  const counts = (await disk.entries(`c${prefix}`)).map(([count, devices]) => `c${count}=${devices}`)
  assert.deepEqual([...entries, ...counts].sort(), indexOf(statuses), `the index of ${what}`)
}

/** The entries and the counts that an index of these statuses has, with what they are stored under before them. */
function indexOf(statuses: Statuses): string[] {
  const lines = new Set<string>()
  const counts = new Map<string, number>()
  const sink: IndexSink = {
    put: (entry, deviceId) => lines.add(`i${entry}\0${deviceId}`),
    delete: () => assert.fail('a device that is new leaves nothing'),
    count: (group, what, by) => counts.set(`${group}\0${what}`, (counts.get(`${group}\0${what}`) ?? 0) + by),
  }
  for (const [deviceId, text] of statuses) {
    reindex({ deviceId, before: undefined, after: indexedIn(deviceId, Buffer.from(text)) }, sink)
  }
  for (const [count, devices] of counts) lines.add(`c${count}=${devices}`)
  return Array.from(lines).sort()
}
