import { write, writeSync } from 'node:fs'
import { type Logger, pino } from 'pino'
import { pause } from './pause.ts'

const STDERR = 2
/**
 * Bytes of lines that may wait for stderr; lines beyond them are dropped and counted. One turn of the event loop logs
 * less.
 */
const MAX_WAITING_BYTES = 4 * 1024 * 1024
/** Milliseconds until a failed write is tried again. */
const RETRY_MS = 10
/** Milliseconds for which lastWords() waits for stderr. */
const LAST_MS = 1000
/** Milliseconds for which the `exit` handler waits for stderr; nothing else runs meanwhile. */
const EXIT_MS = 500
/** Milliseconds between two looks whether stderr has taken all lines. */
const LOOK_MS = 5

/**
 * Writes lines to stderr without blocking. pino's own destination, sonic-boom, has `maxLength` and reports drops, but
 * its error on a full disk ends the process. At the end it retries for ever to write to a pipe that nobody reads.
 */
class Output {
  /** The bytes of the write under way, or of the next try. */
  #offered: Buffer | undefined
  #writing = false
  #waiting: Buffer[] = []
  #waitingBytes = 0
  #retry: NodeJS.Timeout | undefined
  #dropped = 0
  /** Called with the number of dropped lines once stderr takes lines again. */
  onDropped: (lines: number) => void = () => {}

  constructor() {
    // The getter makes a pipe non-blocking: a thread that hangs in a write would keep the process alive for ever.
    void process.stderr
    process.on('exit', () => this.#end())
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

  /** Resolves when all has been taken, or after LAST_MS. */
  async flush(): Promise<void> {
    const deadline = performance.now() + LAST_MS
    while (this.#waitingBytes > 0 && performance.now() < deadline) await pause(LOOK_MS)
  }

  #offer(): void {
    const bytes = this.#take()
    this.#writing = true
    write(STDERR, bytes, (error, written) => {
      this.#writing = false
      if (error !== null) {
        this.#retry = setTimeout(() => {
          this.#retry = undefined
          this.#offer()
        }, RETRY_MS).unref()
        return
      }
      this.#taken(bytes, written)
      if (this.#waitingBytes > 0) return this.#offer()
      const dropped = this.#dropped
      this.#dropped = 0
      if (dropped > 0) this.onDropped(dropped)
    })
  }

  #take(): Buffer {
    this.#offered ??= Buffer.concat(this.#waiting.splice(0))
    return this.#offered
  }

  #taken(bytes: Buffer, written: number): void {
    this.#waitingBytes -= written
    this.#offered = written < bytes.length ? bytes.subarray(written) : undefined
  }

  /** The write under way ends before the process does, so its bytes are not written again. */
  #end(): void {
    const deadline = performance.now() + EXIT_MS
    if (this.#writing) {
      this.#waitingBytes -= this.#offered?.length ?? 0
      this.#offered = undefined
    }
    while (this.#waitingBytes > 0 && performance.now() < deadline) {
      const bytes = this.#take()
      try {
        this.#taken(bytes, writeSync(STDERR, bytes))
      } catch (error) {
        // A full pipe may still be read; nothing helps a full disk.
        if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') return
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, LOOK_MS)
      }
    }
  }
}

const output = new Output()

/** A full disk, or a pipe that nobody reads, holds up neither the process nor its end. */
export function openLogger(level: string): Logger {
  const logger = pino({ level }, output)
  output.onDropped = (lines) => logger.warn({ lines }, 'stderr took nothing for a while: lines were dropped')
  return logger
}

/** Call it before the process ends: it resolves when stderr has taken all lines and `last`, or after a second. */
export async function lastWords(last = ''): Promise<void> {
  if (last !== '') output.write(last)
  await output.flush()
}
