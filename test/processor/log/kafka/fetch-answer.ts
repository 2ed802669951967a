import { WireWriter } from '../../../../processor/log/kafka/protocol/wire.ts'

export interface Answered {
  readonly partition: number
  readonly code: number
  readonly bytes?: Buffer
  readonly lostFrom?: number
  /** The last stable offset. */
  readonly end?: number
}

/** A fetch response, version 12. */
export function fetchAnswer(answered: readonly Answered[], code = 0): Buffer {
  const writer = new WireWriter().unsignedVarint(0).int32(0).int16(code).int32(0)
  writer
    .unsignedVarint(2)
    .compactString('t')
    .unsignedVarint(answered.length + 1)
  for (const { partition, code: error, bytes = Buffer.alloc(0), lostFrom, end = 9 } of answered) {
    writer.int32(partition).int16(error).int64(0).int64(end).int64(0).unsignedVarint(1)
    writer
      .int32(-1)
      .unsignedVarint(bytes.length + 1)
      .raw(bytes)
    if (lostFrom === undefined) writer.unsignedVarint(0)
    else writer.unsignedVarint(1).unsignedVarint(0).unsignedVarint(13).int32(0).int64(lostFrom).unsignedVarint(0)
  }
  return writer.unsignedVarint(0).unsignedVarint(0).finish()
}
