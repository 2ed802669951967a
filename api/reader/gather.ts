import type { SlicedAnswer } from '../../processor/contract/query.ts'

/** Most ids in one gathered question; more are asked in a question of their own. */
const MAX_GATHERED = 2_048

interface Waiting {
  readonly deviceIds: string[]
  readonly settle: { resolve(answer: SlicedAnswer): void; reject(error: unknown): void }[]
}

/** Takes the answer to the id at `place` of a question. */
export type Settle = (place: number, answer: SlicedAnswer | Error) => void

type Ask = (deviceIds: readonly string[], settle: Settle) => Promise<void>

/**
 * Reads of single devices that arrive in one turn of the event loop become one question: a store answers a batch many
 * times faster than its parts one by one, and another process is asked once.
 */
export class Gather {
  readonly #ask: Ask
  #waiting: Waiting | undefined

  constructor(ask: Ask) {
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
      await this.#ask(deviceIds, (place, answer) => {
        if (answer instanceof Error) settle[place]?.reject(answer)
        else settle[place]?.resolve(answer)
      })
    } catch (error) {
      // Of those that have their answer nothing changes.
      for (const waiter of settle) waiter.reject(error)
    }
  }
}
