import { RetryableError } from '../contract/errors.ts'
import { within } from '../runtime/pause.ts'

/** Work under way, and results that nobody has taken yet. */
const MAX_KEPT = 1_024
/** A result that nobody asks for again within so long, ms, is dropped: who waits for a connection meanwhile finds it. */
export const KEPT_MS = 5_000

/** Work that may take longer than who asks for it can wait: he asks again, and finds it under way or done. */
export class Unfinished<T extends object> {
  readonly #begun = new Map<string, Promise<T>>()

  /** What `begin` gives, or gave when it was last asked for by this key; undefined when it is not there in `ms`. */
  async within(key: string, begin: () => Promise<T>, ms: number): Promise<T | undefined> {
    const result = await within(this.#begun.get(key) ?? this.#begin(key, begin), ms, () => undefined)
    if (result !== undefined) this.#begun.delete(key)
    return result
  }

  #begin(key: string, begin: () => Promise<T>): Promise<T> {
    if (this.#begun.size >= MAX_KEPT) throw new RetryableError('STORE_UNAVAILABLE', `${MAX_KEPT} scans are under way`)
    const work = begin()
    const drop = () => {
      if (this.#begun.get(key) === work) this.#begun.delete(key)
    }
    this.#begun.set(key, work)
    work.then(() => setTimeout(drop, KEPT_MS).unref(), drop)
    return work
  }
}
