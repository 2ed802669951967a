import { guarded } from './damage.ts'
import { type Database, keysOf, LevelCursor, type Meta, metaOf, partitionOfMeta } from './level-store.ts'
import type { Checkpoint, EntryCursor, Searched, Way } from './store.ts'

/** One partition of a database that is open for reading only and does not change, without its indexes. */
export class LevelView implements Searched {
  readonly #db: Database
  readonly #first: string
  readonly checkpoint: Checkpoint
  readonly generation: number
  readonly count: undefined
  readonly index: undefined

  private constructor(db: Database, partition: number, { generation = 0, ...checkpoint }: Meta) {
    this.#db = db
    this.#first = keysOf(partition).first
    this.checkpoint = checkpoint
    this.generation = generation
  }

  /** Reads all partitions. Rejects as a store does. */
  static async all(db: Database): Promise<Map<number, LevelView>> {
    const views = new Map<number, LevelView>()
    for (const [key, bytes] of await guarded(() => db.iterator({ gte: 'm', lt: 'n' }).all())) {
      const partition = partitionOfMeta(key)
      views.set(partition, new LevelView(db, partition, metaOf(bytes)))
    }
    return views
  }

  getMany(keys: readonly string[]): Promise<(Buffer | undefined)[]> {
    return guarded(() => this.#db.getMany(keys.map((key) => this.#first + key)))
  }

  between(from: string, to: string, way: Way): EntryCursor {
    return new LevelCursor(this.#db, this.#first, from, to, way)
  }
}
