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
