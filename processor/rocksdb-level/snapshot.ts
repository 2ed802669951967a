import { AbstractSnapshot } from 'abstract-level'
import type { NativeDb } from './native.ts'

export class RocksSnapshot extends AbstractSnapshot {
  /** The database it was made of: it reads no other. */
  readonly native: NativeDb
  /** A session that reads the state of the moment it was made. */
  readonly session: NativeDb

  constructor(native: NativeDb, options: { owner: unknown }) {
    // AbstractSnapshot's constructor is not part of its published types.
    super(...([options] as unknown as []))
    this.native = native
    this.session = native.session({ snapshot: true })
  }

  async _close(): Promise<void> {
    await this.session.close()
  }
}
