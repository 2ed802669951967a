import { UnavailableError } from '../contract/errors.ts'
import type { Offset } from '../log/log.ts'

/** Readers that wait on one partition; further ones are refused. */
const MAX_WAITERS = 1024

interface Waiter {
  readonly offset: Offset
  settle(reached: boolean): void
}

/** Readers that wait until the copy of one partition has applied a certain record, as one does who reads its own write. */
export class PositionWaiters {
  readonly #waiters = new Set<Waiter>()

  /**
   * True once the record at `offset` is applied; false when it is not after `withinMs`, or the copy is given up.
   * Rejects with UnavailableError at the bound.
   */
  applied(offset: Offset, withinMs: number): Promise<boolean> {
    if (withinMs <= 0) return Promise.resolve(false)
    if (this.#waiters.size >= MAX_WAITERS) {
      const reason = `${MAX_WAITERS} questions wait for the partition already`
      return Promise.reject(new UnavailableError('PARTITION_UNAVAILABLE', reason))
    }
    return new Promise((resolve) => {
      const settle = (reached: boolean): void => {
        clearTimeout(timer)
        this.#waiters.delete(waiter)
        resolve(reached)
      }
      const waiter = { offset, settle }
      const timer = setTimeout(() => settle(false), withinMs)
      this.#waiters.add(waiter)
    })
  }

  /** The copy has applied all input before `input`. */
  reached(input: Offset): void {
    if (this.#waiters.size === 0) return
    for (const waiter of this.#waiters) if (waiter.offset < input) waiter.settle(true)
  }

  /** The copy moves no further: whoever waits asks another. */
  release(): void {
    for (const waiter of this.#waiters) waiter.settle(false)
  }
}
