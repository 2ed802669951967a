import type { SlicedAnswer } from '../processor/contract/query.ts'

/** Most ids in one gathered question; more are asked in a question of their own. */
const MAX_GATHERED = 2_048

interface Waiting {
  readonly deviceIds: string[]
  readonly settle: { resolve(answer: SlicedAnswer): void; reject(error: unknown): void }[]
}

/**
 * Reads of single devices that arrive in one turn of the event loop become one question: a store answers a batch many
 * times faster than its parts one by one, and another process is asked once.
 */
export class Gather {
  readonly #ask: (deviceIds: readonly string[]) => Promise<(SlicedAnswer | Error)[]>
  #waiting: Waiting | undefined

  constructor(ask: (deviceIds: readonly string[]) => Promise<(SlicedAnswer | Error)[]>) {
    this.#ask = ask
  }

  get(deviceId: string): Promise<SlicedAnswer> {
    return new Promise((resolve, reject) => {
      if (this.#waiting === undefined) {
        this.#waiting = { deviceIds: [], settle: [] }
        setImmediate(this.#flush)
      }
      const { deviceIds, settle } = this.#waiting
      deviceIds.push(deviceId)
      settle.push({ resolve, reject })
      if (deviceIds.length >= MAX_GATHERED) this.#flush()
    })
  }

  readonly #flush = (): void => {
    const waiting = this.#waiting
    this.#waiting = undefined
    if (waiting !== undefined) void this.#send(waiting)
  }

  /** Never rejects: what goes wrong is told to those who wait. */
  async #send({ deviceIds, settle }: Waiting): Promise<void> {
    try {
      const answers = await this.#ask(deviceIds)
      for (let i = 0; i < settle.length; i++) {
        const answer = answers[i] as SlicedAnswer | Error
        if (answer instanceof Error) settle[i]?.reject(answer)
        else settle[i]?.resolve(answer)
      }
    } catch (error) {
      for (const waiter of settle) waiter.reject(error)
    }
  }
}
