// A process to be killed: writes batches without end and says which RocksDB has acknowledged.
import { RocksLevel } from '../../../processor/rocksdb-level/index.ts'

const db = new RocksLevel(process.argv[2] ?? '', { writeBufferSize: 256 * 1024 })
await db.open()
for (let n = 0; ; n++) {
  const keys = Array.from({ length: 20 }, (_, i) => `${String(n).padStart(6, '0')}-${i}`)
  await db.batch(keys.map((key) => ({ type: 'put', key, value: `${n}`.padEnd(200, '.') })))
  process.stdout.write(`${n}\n`)
}
