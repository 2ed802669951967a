import { readlinkSync } from 'node:fs'
import { setPriority } from 'node:os'
import { basename } from 'node:path'
import { setImmediate as nextTurn } from 'node:timers/promises'

/**
 * Bytes of JSON that one turn of the event loop handles, in about 3 ms. Work is counted, not timed, so that a replay
 * takes the same steps.
 */
const TURN_WORK = 512 * 1024

/** A record or a status costs this much work beside its bytes. */
const RECORD_WORK = 128

/**
 * Shares the event loop between the tasks of a process: when a turn's work is done, sockets are served before the next.
 */
export class Turns {
  #spent = 0
  #tickets = 0
  /** Sorted by ticket; each task has one entry at most. */
  readonly #waiting: Turn[] = []

  /** Gives a ticket for one batch. The oldest batch goes first, and is committed while the next one is folded. */
  take(): Turn {
    return new Turn(this, ++this.#tickets)
  }

  /** Returns true when the turn is over. */
  spend(bytes: number): boolean {
    this.#spent += bytes + RECORD_WORK
    return this.#spent >= TURN_WORK
  }

  wait(turn: Turn): void {
    let i = this.#waiting.length
    while (i > 0 && (this.#waiting[i - 1] as Turn).ticket > turn.ticket) i--
    this.#waiting.splice(i, 0, turn)
    if (this.#waiting.length === 1) setImmediate(this.#begin)
  }

  readonly #begin = (): void => {
    this.#spent = 0
    this.#waiting.shift()?.resume()
    // An immediate made now runs in the next turn.
    if (this.#waiting.length > 0) setImmediate(this.#begin)
  }
}

export class Turn {
  readonly ticket: number
  readonly #turns: Turns
  resume: () => void = () => {}

  constructor(turns: Turns, ticket: number) {
    this.#turns = turns
    this.ticket = ticket
  }

  /** Counts one record of `bytes`. When it returns true the turn is over: then await `next`. */
  spend(bytes: number): boolean {
    return this.#turns.spend(bytes)
  }

  next(): Promise<void> {
    return new Promise((resolve) => {
      this.resume = resolve
      this.#turns.wait(this)
    })
  }
}

/**
 * Priorities go from -20 (first) to 19 (last). The other threads have 0, and with it 68 times the share of the
 * processor.
 */
const NICE = 19

/** Makes this thread yield to all others. Only on Linux does a thread have a priority of its own. */
export function yieldToOthers(self = '/proc/thread-self'): void {
  if (process.platform !== 'linux') return
  try {
    setPriority(Number(basename(readlinkSync(self))), NICE)
  } catch {
    // Some sandboxes have no /proc, or forbid this. The thread then keeps its priority.
  }
}

/** Bytes of statuses that one turn of the event loop turns into text; parsing them takes some milliseconds. */
const MAX_TURN_BYTES = 256 * 1024

/** Shares the event loop between long answers and all else: the answers wait together, and none overtakes another. */
export class TextTurns {
  #bytes = 0
  #pause: Promise<void> | undefined

  /** Counts a status of `bytes`. When the turn is over it returns a promise to await. */
  spend(bytes: number): Promise<void> | undefined {
    this.#bytes += bytes
    if (this.#bytes > MAX_TURN_BYTES) {
      this.#bytes = 0
      this.#pause ??= this.#next()
    }
    return this.#pause
  }

  async #next(): Promise<void> {
    await nextTurn()
    this.#pause = undefined
  }
}
