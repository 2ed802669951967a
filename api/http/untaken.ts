import type { ServerResponse } from 'node:http'
import { finished } from 'node:stream'
import { ProblemError } from './problem.ts'

/** Answers of fewer bytes, to which there are as many as connections, may go uncounted. */
export const SMALL_ANSWER_BYTES = 64 * 1024

/**
 * Counts the bytes of answers that clients have not taken: a read is over long before a client that does not read has its
 * answer, which waits here until then, or until its connection has been idle for too long.
 */
export class UntakenAnswers {
  readonly #maxBytes: number
  #bytes = 0

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes
  }

  get bytes(): number {
    return this.#bytes
  }

  /** Before an answer is made. Throws ProblemError `overloaded` when there is no room for any. */
  admit(): void {
    if (this.#bytes >= this.#maxBytes) throw this.#full()
  }

  /** Counts an answer until `response` has been handed to the system, or cannot be any more. Throws as `admit` when it is too much. */
  hold(bytes: number, response: ServerResponse): void {
    if (this.#bytes > 0 && this.#bytes + bytes > this.#maxBytes) throw this.#full()
    this.#bytes += bytes
    finished(response, () => {
      this.#bytes -= bytes
    })
  }

  #full(): ProblemError {
    return ProblemError.overloaded(`answers of ${this.#bytes} bytes wait for their clients to read them`)
  }
}
