import type { AbstractIterator } from 'abstract-level'
import { guarded } from './guarded.ts'
import type { Database } from './level-store.ts'
import type { EntryCursor, Way } from './store.ts'

/** Of keys that begin with `first`, which is not part of what is given. */
export class LevelCursor implements EntryCursor {
  readonly #iterator: AbstractIterator<Database, string, Buffer>
  readonly #first: number

  constructor(db: Database, first: string, from: string, to: string, { backwards, limit = -1 }: Way) {
    this.#iterator = db.iterator({ gte: first + from, lt: first + to, reverse: backwards, limit })
    this.#first = first.length
  }

  /** Rejects as a store does. */
  async next(size: number): Promise<[key: string, value: Buffer][]> {
    const entries = await guarded(() => this.#iterator.nextv(size))
    for (const entry of entries) entry[0] = entry[0].slice(this.#first)
    return entries
  }

  close(): Promise<void> {
    return this.#iterator.close()
  }
}

/** Entries read at once where their bytes are bounded: what is too much is read with them. */
const SMALL_READ = 16

/** Up to the entry with which the values have `maxBytes`; closes the iterator. */
export async function readUpTo(
  iterator: AbstractIterator<Database, string, Buffer>,
  maxBytes: number,
): Promise<[key: string, value: Buffer][]> {
  const entries: [key: string, value: Buffer][] = []
  try {
    for (let bytes = 0; ; ) {
      const read = await iterator.nextv(SMALL_READ)
      if (read.length === 0) return entries
      for (const entry of read) {
        entries.push(entry)
        bytes += entry[1].byteLength
        if (bytes >= maxBytes) return entries
      }
    }
  } finally {
    await iterator.close()
  }
}
