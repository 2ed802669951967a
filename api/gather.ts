import type { Answer } from '../processor/contract/query.ts'

/** Most ids in one gathered question; more are asked in a question of their own. */
const MAX_GATHERED = 512

interface Waiting {
  readonly deviceIds: string[]
  readonly settle: { resolve(answer: Answer): void; reject(error: unknown): void }[]
}

/**
 * Reads of single devices that arrive in one turn of the event loop become one question per partition: a store answers a
 * batch many times faster than its parts one by one, and another process is asked once.
 */
export class Gather {
  readonly #ask: (partition: number, deviceIds: readonly string[]) => Promise<Answer[]>
  readonly #waiting = new Map<number, Waiting>()
  #scheduled = false

  constructor(ask: (partition: number, deviceIds: readonly string[]) => Promise<Answer[]>) {
    this.#ask = ask
  }

  get(partition: number, deviceId: string): Promise<Answer> {
    return new Promise((resolve, reject) => {
      let waiting = this.#waiting.get(partition)
      if (waiting === undefined) {
        waiting = { deviceIds: [], settle: [] }
        this.#waiting.set(partition, waiting)
      }
      waiting.deviceIds.push(deviceId)
      waiting.settle.push({ resolve, reject })
      if (waiting.deviceIds.length >= MAX_GATHERED) {
        this.#waiting.delete(partition)
        void this.#send(partition, waiting)
      } else if (!this.#scheduled) {
        this.#scheduled = true
        setImmediate(this.#flush)
      }
    })
  }

  readonly #flush = (): void => {
    this.#scheduled = false
    for (const [partition, waiting] of this.#waiting) void this.#send(partition, waiting)
    this.#waiting.clear()
  }

  /** Never rejects: what goes wrong is told to those who wait. */
  async #send(partition: number, { deviceIds, settle }: Waiting): Promise<void> {
    try {
      const answers = await this.#ask(partition, deviceIds)
      for (let i = 0; i < settle.length; i++) settle[i]?.resolve(answers[i] as Answer)
    } catch (error) {
      for (const waiter of settle) waiter.reject(error)
    }
  }
}
