import { batchCrc, CRC_AT, encodeBatch, sizeBound } from '../../processor/log/kafka/protocol/record-batch.ts'
import { writeInt64 } from '../../processor/log/kafka/protocol/wire.ts'
import type { NewRecord } from '../../processor/log/log.ts'

/** The records as a broker has them at `base`. */
export function batch(records: readonly NewRecord[], base: number, producer = 7, attributes = 0): Buffer {
  const bound = records.reduce((sum, next) => sum + sizeBound(next), 0)
  const bytes = encodeBatch(records, 0, records.length, bound, { id: producer, epoch: 0 }, 0, false)
  writeInt64(bytes, base, 0)
  bytes.writeInt16BE(attributes, 21)
  return sealed(bytes)
}

/** With the CRC that fits its bytes. */
export function sealed(bytes: Buffer): Buffer {
  bytes.writeUInt32BE(batchCrc(bytes, 0, bytes.length), CRC_AT)
  return bytes
}
