import { ConfigurationError, RetryableError, repartitioned, type TidemarkError } from '../../contract/errors.ts'

/**
 * For so long, ms, brokers must tell another id, and none the known one in between. One that is behind with its metadata
 * tells what was before; it is behind for much less, or cut off from the others.
 */
const BELIEVED_AFTER_MS = 2000
/** What a broker that knows no ids (before 2.8) tells: 16 bytes of zeros. */
const NO_ID = Buffer.alloc(16).toString('base64url')

type Told = ReadonlyMap<string, { readonly id: string; readonly leaders: readonly number[] }>

/**
 * Whether topics are still those that the log was opened with. One that is deleted and created anew has the same name,
 * and answers as if nothing were amiss; but offsets of the former one mean nothing in it.
 */
export class TopicIds {
  readonly #known = new Map<string, string>()
  readonly #partitions = new Map<string, number>()
  /** Since when another id is told, ms on the clock of `see`. */
  readonly #since = new Map<string, number>()
  readonly #recreated = Promise.withResolvers<never>()
  #fault: ConfigurationError | undefined

  constructor() {
    // Not every process has members that listen.
    this.#recreated.promise.catch(() => {})
  }

  /** Rejects with LOG_MISMATCH, when it is believed that a topic is another one. */
  get recreated(): Promise<never> {
    return this.#recreated.promise
  }

  hold(topic: string, id: string, partitions: number): void {
    if (id === NO_ID) return
    this.#known.set(topic, id)
    this.#partitions.set(topic, partitions)
  }

  /** False for a topic whose id is not known: nothing that is told of it can raise doubt. */
  holds(topic: string): boolean {
    return this.#known.has(topic)
  }

  /** Takes notice of what a broker told at `now`, ms. The fault when it is believed from then on. */
  see(topics: Told, now: number): ConfigurationError | undefined {
    if (this.#fault !== undefined) return undefined
    for (const [topic, known] of this.#known) {
      const told = topics.get(topic)?.id
      // Without a topic, as when its partitions have no leaders yet, nothing is told.
      if (told === undefined || told === NO_ID) continue
      if (told === known) {
        this.#since.delete(topic)
        continue
      }
      const since = this.#since.get(topic) ?? now
      this.#since.set(topic, since)
      if (now - since < BELIEVED_AFTER_MS) continue
      this.#fault = recreated(topic, known, told)
      this.#recreated.reject(this.#fault)
      return this.#fault
    }
    return undefined
  }

  /**
   * Why no process will start any more, once for each topic: partitions were added to it. Who runs already goes on with
   * those that there were; one that is behind with its metadata tells fewer.
   */
  grown(topics: Told): ConfigurationError | undefined {
    for (const [topic, partitions] of this.#partitions) {
      const told = topics.get(topic)
      if (told?.id !== this.#known.get(topic) || told === undefined || told.leaders.length <= partitions) continue
      this.#partitions.delete(topic)
      return repartitioned(
        `topic ${topic} has ${told.leaders.length} partitions, and had ${partitions} when this process began: it goes on ` +
          'with those, but no process can begin any more',
      )
    }
    return undefined
  }

  /**
   * Why what a broker said of positions in `topic` is not to be relied on, when it told `topics` afterwards. Retryable as
   * long as it is not believed.
   */
  doubt(topic: string, topics: Told): TidemarkError | undefined {
    const known = this.#known.get(topic)
    if (known === undefined) return undefined
    if (this.#fault !== undefined) return this.#fault
    const told = topics.get(topic)?.id
    if (told === known || told === NO_ID) return undefined
    const what = told === undefined ? 'is not known to its leader' : `has the id ${told}, and had ${known}`
    return new RetryableError('LOG_UNAVAILABLE', `topic ${topic} ${what}: it is being deleted, or was created anew`)
  }
}

function recreated(topic: string, known: string, told: string): ConfigurationError {
  return new ConfigurationError(
    'LOG_MISMATCH',
    `topic ${topic} was deleted and created anew while it was used (its id is ${told}, and was ${known}): what it held is ` +
      'gone, and offsets of it mean nothing now; to begin anew too, stop all processors, delete the changelog topic and ' +
      'the group (kafka-consumer-groups --delete), and start them again',
  )
}
