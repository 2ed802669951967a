import { lastWords } from './logger.ts'

/**
 * A second signal within this many milliseconds repeats the first: Ctrl-C reaches npm as well as its process, and npm
 * passes it on.
 */
const SAME_WITHIN_MS = 1_000

interface Handlers {
  readonly first: (name: NodeJS.Signals) => void
  /** Called at a second signal, whose sender does not want to wait. */
  readonly again: () => void
}

/** SIGINT, SIGTERM and SIGHUP (a closed terminal) call the handlers and do not end the process by themselves. */
export function onStopSignals({ first, again }: Handlers, from: NodeJS.EventEmitter = process, now = monotonic): void {
  let since: number | undefined
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    from.on(name, () => {
      if (since !== undefined) {
        if (now() - since >= SAME_WITHIN_MS) again()
        return
      }
      since = now()
      first(name)
    })
  }
}

function monotonic(): number {
  return performance.now()
}

/** Aborts when stdout takes no more: a command that prints has nothing left to do, and its exit code is 1. */
export function stopWithStdout(): AbortSignal {
  const unread = new AbortController()
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (unread.signal.aborted) return
    unread.abort()
    process.exitCode = 1
    // EPIPE: the reader, such as head, has stopped by itself.
    if (error.code !== 'EPIPE') void lastWords(`tidemark: stdout cannot be written: ${error.message}\n`)
  })
  return unread.signal
}

/** Aborts at the first SIGINT, SIGTERM or SIGHUP (a closed terminal). A second signal ends the process at once. */
export function stopSignal(): AbortSignal {
  const stop = new AbortController()
  onStopSignals({ first: (name) => stop.abort(name), again: () => end(1) })
  return stop.signal
}

export function endAtOnce(): void {
  end(0)
}

/** Ends the process when its log lines are written, or after a second. */
export function end(code: number): void {
  void lastWords().then(() => process.exit(code))
}
