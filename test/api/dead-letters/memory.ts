import { OffsetOutOfRangeError } from '../../../processor/contract/errors.ts'
import type { LetterReader, LogRecord, NewRecord, Offset } from '../../../processor/contract/record.ts'

/** Dead letters in memory; between them there may be gaps, as transaction markers leave them. */
export class MemoryLetters implements LetterReader {
  readonly identity = 'memory'
  readonly partitions: number
  readonly #records: LogRecord[][]
  readonly #starts: Offset[]
  readonly #ends: Offset[]
  /** Offsets from the first to the end of what was asked for, by reading. */
  readonly windows: number[] = []
  /** Awaited before each batch. */
  before: (signal: AbortSignal) => Promise<void> | undefined = () => undefined

  constructor(partitions: number) {
    this.partitions = partitions
    this.#records = Array.from({ length: partitions }, () => [])
    this.#starts = this.#records.map(() => 0)
    this.#ends = this.#records.map(() => 0)
  }

  add(partition: number, letter: Partial<NewRecord>, gap = 0): void {
    const offset = this.#ends[partition] as Offset
    this.#records[partition]?.push({ offset, key: null, value: null, timestamp: -1, ...letter })
    this.#ends[partition] = offset + 1 + gap
  }

  /** Retention removes what comes before `start`. */
  remove(partition: number, start: Offset): void {
    this.#starts[partition] = start
    this.#records[partition] = this.kept(partition).filter(({ offset }) => offset >= start)
  }

  kept(partition: number): readonly LogRecord[] {
    return this.#records[partition] ?? []
  }

  bounds: LetterReader['bounds'] = async (partition) => {
    return { start: this.#starts[partition] as Offset, end: this.#ends[partition] as Offset }
  }

  async *read(partition: number, from: Offset, to: Offset, signal: AbortSignal): AsyncGenerator<readonly LogRecord[]> {
    this.windows.push(to - from)
    let next = from
    while (next < to) {
      await this.before(signal)
      signal.throwIfAborted()
      if (next < (this.#starts[partition] as Offset)) throw new OffsetOutOfRangeError(`${next} is gone`)
      const kept = this.kept(partition)
      const first = kept.findIndex(({ offset }) => offset >= next)
      const records = first === -1 ? [] : kept.slice(first, first + 3)
      const last = records.at(-1)
      next = last === undefined ? to : last.offset + 1
      yield records
    }
  }
}
