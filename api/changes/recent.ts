import type { Offset } from '../../processor/contract/record.ts'
import type { Change } from './change.ts'

/** The newest changes of one partition, within bounds of records and bytes; the oldest go first. */
export class RecentChanges {
  readonly #maxRecords: number
  readonly #maxBytes: number
  #changes: Change[] = []
  /** Of `#changes`, what lies before is gone. */
  #head = 0
  #bytes = 0
  /** All changes from here on are at hand. */
  start: Offset
  /** Where the next one is to be read. */
  next: Offset

  constructor(from: Offset, maxRecords: number, maxBytes: number) {
    this.start = from
    this.next = from
    this.#maxRecords = maxRecords
    this.#maxBytes = maxBytes
  }

  push(change: Change): void {
    this.#changes.push(change)
    this.#bytes += change.bytes
    this.next = change.offset + 1
    while (this.#changes.length - this.#head > this.#maxRecords || this.#bytes > this.#maxBytes) this.#drop()
    if (this.#head > this.#maxRecords) {
      this.#changes = this.#changes.slice(this.#head)
      this.#head = 0
    }
  }

  /** The position moved, past what compaction took or what is no record. */
  pass(next: Offset): void {
    this.next = Math.max(this.next, next)
  }

  /** From `from` on, up to about `maxBytes`; undefined when some of it is gone. */
  read(from: Offset, maxBytes: number): { changes: Change[]; next: Offset } | undefined {
    if (from < this.start) return undefined
    const changes: Change[] = []
    let bytes = 0
    for (let i = this.#find(from); i < this.#changes.length; i++) {
      const change = this.#changes[i] as Change
      if (bytes >= maxBytes) return { changes, next: change.offset }
      changes.push(change)
      bytes += change.bytes
    }
    return { changes, next: Math.max(from, this.next) }
  }

  #drop(): void {
    const dropped = this.#changes[this.#head] as Change
    this.#bytes -= dropped.bytes
    this.start = dropped.offset + 1
    // Its text is large; the place in the array is not.
    this.#changes[this.#head++] = undefined as unknown as Change
  }

  /** Place of the first change with an offset of `from` or more. */
  #find(from: Offset): number {
    let low = this.#head
    let high = this.#changes.length
    while (low < high) {
      const middle = (low + high) >> 1
      if ((this.#changes[middle] as Change).offset < from) low = middle + 1
      else high = middle
    }
    return low
  }
}
