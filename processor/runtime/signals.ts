/**
 * A signal so soon after the first, in ms, is that one told again: Ctrl-C reaches npm as well as the process it runs, and
 * npm hands it on.
 */
const SAME_WITHIN_MS = 1_000

interface Handlers {
  readonly first: (name: NodeJS.Signals) => void
  /** Whoever sends a second signal does not want to wait. */
  readonly again: () => void
}

/** Has `process` handle SIGINT, SIGTERM and SIGHUP (a terminal that is closed); none ends it by itself any more. */
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
