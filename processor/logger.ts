import { write, writeSync } from 'node:fs'
import { type Logger, pino } from 'pino'

const STDERR = 2
/** Bytes of lines that stderr has not taken yet, beyond which further lines are dropped, and counted. */
const MAX_WAITING_BYTES = 1024 * 1024
/** When lines that stderr did not take are offered again, ms. */
const RETRY_MS = 100

/** Writes to stderr. A full disk, or a pipe that nobody reads, holds up neither the process nor its end. */
export function openLogger(level: string): Logger {
  // With this, Node makes it not block where it is a pipe: a thread that hangs in a write would keep the process for ever.
  void process.stderr
  const tell = (lines: number): void => logger.warn({ lines }, 'stderr took nothing for a while: lines were dropped')
  const output = new Output(tell)
  const logger = pino({ level }, output)
  process.on('exit', () => output.end())
  return logger
}

/** Not pino's own destination: that one ends the process at an error, and at its end tries for ever to write the rest. */
class Output {
  readonly #tell: (dropped: number) => void
  readonly #waiting: Buffer[] = []
  #waitingBytes = 0
  /** The first of those that wait is being written. */
  #writing = false
  #retry: NodeJS.Timeout | undefined
  #dropped = 0

  constructor(tell: (dropped: number) => void) {
    this.#tell = tell
  }

  write(line: string): void {
    const bytes = Buffer.from(line)
    if (this.#waitingBytes + bytes.length > MAX_WAITING_BYTES) {
      this.#dropped++
      return
    }
    this.#waiting.push(bytes)
    this.#waitingBytes += bytes.length
    if (!this.#writing && this.#retry === undefined) this.#offer()
  }

  #offer(): void {
    const all = Buffer.concat(this.#waiting.splice(0))
    this.#waiting.push(all)
    this.#writing = true
    write(STDERR, all, (error, written) => {
      this.#writing = false
      if (error !== null) {
        this.#retry = setTimeout(() => {
          this.#retry = undefined
          this.#offer()
        }, RETRY_MS).unref()
        return
      }
      this.#waitingBytes -= written
      if (written < all.length) this.#waiting[0] = all.subarray(written)
      else this.#waiting.shift()
      if (this.#waiting.length > 0) this.#offer()
      else if (this.#dropped > 0) this.#tell(this.#takeDropped())
    })
  }

  #takeDropped(): number {
    const dropped = this.#dropped
    this.#dropped = 0
    return dropped
  }

  /** Writes what can be written at once. The process does not end before a write that is under way. */
  end(): void {
    let rest = Buffer.concat(this.#writing ? this.#waiting.slice(1) : this.#waiting)
    try {
      while (rest.length > 0) rest = rest.subarray(writeSync(STDERR, rest))
    } catch {
      // There is nobody left to tell.
    }
  }
}
