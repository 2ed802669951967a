// abstract-level's own conformance suite over RocksLevel, printed as TAP. Run by conformance.test.ts in a process of its
// own, because the suite registers its tests with tape. Plain JavaScript: neither tape nor the suite has types.
import { join } from 'node:path'
import suite from 'abstract-level/test/index.js'
import test from 'tape'
import { RocksLevel } from '../../../processor/rocksdb-level/index.ts'

/** A folder of the caller's, who removes it: this process may be killed, and would leave some 7 GB. */
const root = process.argv[2]
let made = 0

suite({
  test,
  factory: (options) => new RocksLevel(join(root, String(++made)), options),
})
