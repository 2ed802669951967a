import { AbstractChainedBatch } from 'abstract-level'
import { failureOf } from './errors.ts'
import type { RocksLevel } from './index.ts'
import { bytes, type NativeDb } from './native.ts'
import { type Operation, write } from './write.ts'

export class RocksChainedBatch<K, V> extends AbstractChainedBatch<RocksLevel<K, V>, K, V> {
  readonly #native: NativeDb
  #operations: Operation[] = []

  constructor(db: RocksLevel<K, V>, native: NativeDb) {
    super(db)
    this.#native = native
  }

  _put(key: Buffer, value: Buffer): void {
    this.#operations.push({ key: bytes(key), value: bytes(value) })
  }

  _del(key: Buffer): void {
    this.#operations.push({ key: bytes(key), value: null })
  }

  _clear(): void {
    this.#operations = []
  }

  async _write(): Promise<void> {
    try {
      await write(this.#native, this.#operations)
    } catch (error) {
      throw failureOf(this.db, error)
    }
  }
}
