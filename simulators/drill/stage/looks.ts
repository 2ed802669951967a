import { reasonOf } from '../../../processor/contract/errors.ts'
import { within } from '../../../processor/runtime/pause.ts'

/** Longest look at one thing, ms: what takes longer hangs. */
const MAX_LOOK_MS = 600_000

/** Looks at one thing after the other. What cannot be looked at is told, and keeps nobody from the rest. */
export class Looks {
  readonly missing: string[] = []

  /** Undefined when it could not be looked at. */
  async at<T>(what: string, look: () => Promise<T>): Promise<T | undefined> {
    try {
      return await within(look(), MAX_LOOK_MS, tooLong)
    } catch (error) {
      this.missing.push(`${what}: ${reasonOf(error)}`)
      return undefined
    }
  }
}

function tooLong(): never {
  throw new Error(`not within ${MAX_LOOK_MS / 1000} s`)
}
