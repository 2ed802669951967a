// abstract-level's own conformance suite over RocksLevel, printed as TAP. Run by conformance.test.ts in a process of its
// own, because the suite registers its tests with tape. Plain JavaScript: neither tape nor the suite has types.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import suite from 'abstract-level/test/index.js'
import test from 'tape'
import { RocksLevel } from '../../processor/rocksdb-level/index.ts'

const root = mkdtempSync(join(tmpdir(), 'rocksdb-level-conformance-'))
let made = 0

suite({
  test,
  factory: (options) => new RocksLevel(join(root, String(++made)), options),
})

process.on('exit', () => rmSync(root, { recursive: true, force: true }))
