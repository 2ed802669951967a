import type { AbstractIterator } from 'abstract-level'
import { guarded } from './guarded.ts'
import type { Database } from './level.ts'
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
