import { UnavailableError } from '../contract/errors.ts'
import type { Offset } from '../log/log.ts'

/** Questions held of one partition; further ones are refused: a thousand clients that wait for their own writes. */
const MAX_HELD = 1024

interface Held {
  readonly offset: Offset
  settle(arrived: boolean): void
}

/** Those who wait until the copy of one partition includes some record: they are told when it does, and need not ask. */
export class Arrivals {
  readonly #held = new Set<Held>()

  /**
   * True when the record at `offset` is included; false when it is not after `withinMs`, or the copy is given up.
   * Rejects with UnavailableError at the bound.
   */
  past(offset: Offset, withinMs: number): Promise<boolean> {
    if (withinMs <= 0) return Promise.resolve(false)
    if (this.#held.size >= MAX_HELD) {
      const reason = `${MAX_HELD} questions wait for the partition already`
      return Promise.reject(new UnavailableError('PARTITION_UNAVAILABLE', reason))
    }
    return new Promise((resolve) => {
      const settle = (arrived: boolean): void => {
        clearTimeout(timer)
        this.#held.delete(held)
        resolve(arrived)
      }
      const held = { offset, settle }
      const timer = setTimeout(() => settle(false), withinMs)
      this.#held.add(held)
    })
  }

  /** The copy includes all input before `input`. */
  reached(input: Offset): void {
    if (this.#held.size === 0) return
    for (const held of this.#held) if (held.offset < input) held.settle(true)
  }

  /** The copy moves no further: whoever waits is to ask another. */
  release(): void {
    for (const held of this.#held) held.settle(false)
  }
}
