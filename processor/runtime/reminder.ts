/** What lasts is told again after so long, ms. */
const REMIND_MS = 60_000

/** What the log has been told of what is tried again and again. */
export class Reminder {
  #message: string | undefined
  #at = 0

  /** Whether `message` has not been told yet, another has been since, or not for long. Who asks tells it then. */
  isDue(message: string): boolean {
    const now = performance.now()
    if (message === this.#message && now - this.#at < REMIND_MS) return false
    this.#message = message
    this.#at = now
    return true
  }
}
