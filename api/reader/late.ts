import { UnavailableError } from '../../processor/contract/errors.ts'

/** A copy has not answered in time, and may answer yet. */
export class LateError extends UnavailableError {
  constructor(message: string) {
    super('PARTITION_UNAVAILABLE', message)
  }
}

/**
 * The answer, or a LateError after `withinMs`, when `onLate` tells its message. What has arrived by then is read first: this process may be the
 * one that stood still, and timers come before sockets.
 */
export async function inTime<T>(answer: Promise<T>, withinMs: number, onLate: () => string): Promise<T> {
  const { promise: late, reject } = Promise.withResolvers<never>()
  let soon: NodeJS.Immediate | undefined
  const timer = setTimeout(() => {
    soon = setImmediate(() => reject(new LateError(onLate())))
  }, withinMs)
  try {
    return await Promise.race([answer, late])
  } finally {
    clearTimeout(timer)
    clearImmediate(soon)
  }
}
