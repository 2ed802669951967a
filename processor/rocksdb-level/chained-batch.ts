import { AbstractChainedBatch } from 'abstract-level'
import { toLevelError } from './errors.ts'
import type { RocksLevel } from './index.ts'
import { bytes, type NativeDb, type NativeWriteBatch } from './native.ts'

const CAPACITY = 1024

/** Operations go straight into a native write batch. */
export class RocksChainedBatch<K, V> extends AbstractChainedBatch<RocksLevel<K, V>, K, V> {
  readonly #native: NativeDb
  readonly #path: string
  #batch: NativeWriteBatch

  constructor(db: RocksLevel<K, V>, native: NativeDb) {
    super(db)
    this.#native = native
    this.#path = db.location
    this.#batch = native.write({ capacity: CAPACITY, autoDestroy: false })
  }

  _put(key: Buffer, value: Buffer): void {
    this.#batch.tryPut(bytes(key), bytes(value))
  }

  _del(key: Buffer): void {
    this.#batch.tryDelete(bytes(key))
  }

  _clear(): void {
    this.#batch.destroy()
    this.#batch = this.#native.write({ capacity: CAPACITY, autoDestroy: false })
  }

  async _write(): Promise<void> {
    try {
      await this.#batch.flush()
    } catch (error) {
      throw toLevelError(error, this.#path)
    }
  }

  async _close(): Promise<void> {
    this.#batch.destroy()
  }
}
