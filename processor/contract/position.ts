import type { Offset } from './record.ts'

/** Where a record of the telemetry log is. Written `<partition>-<offset>`. */
export interface Position {
  readonly partition: number
  readonly offset: Offset
}

const POSITION = /^(0|[1-9]\d{0,4})-(0|[1-9]\d{0,15})$/

export function formatPosition({ partition, offset }: Position): string {
  return `${partition}-${offset}`
}

/** Undefined when `text` is not the text of a position. */
export function parsePosition(text: string): Position | undefined {
  const match = POSITION.exec(text)
  const offset = Number(match?.[2])
  return Number.isSafeInteger(offset) ? { partition: Number(match?.[1]), offset } : undefined
}
