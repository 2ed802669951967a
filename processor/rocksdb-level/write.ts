import type { NativeDb } from './native.ts'

export interface Operation {
  readonly key: Uint8Array
  /** Null: the key is deleted. */
  readonly value: Uint8Array | null
}

/** Writes all of it, or nothing. */
export function write(db: NativeDb, operations: readonly Operation[]): Promise<void> {
  // The binding makes room for as many, 48 bytes each, with every batch of more than 16: what is not needed is garbage
  // outside the heap, and has V8 collect all of it the sooner.
  const batch = db.write({ capacity: operations.length, autoDestroy: true })
  for (const { key, value } of operations) {
    if (value === null) batch.tryDelete(key)
    else batch.tryPut(key, value)
  }
  return batch.flush()
}
