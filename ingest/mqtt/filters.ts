import type { Subscription } from 'aedes'
import { matches } from './topics.ts'

export type QoS = Subscription['qos']

/**
 * UTF-16 code units of a topic that is kept, as many as a filter may have; a topic may have 65,535, and there are up to
 * 20,000 sessions. A longer one is kept for the turn.
 */
const MAX_KEPT_TOPIC_LENGTH = 512

/** The topic filters of a session, and the QoS granted to each. */
export class Filters {
  readonly #granted = new Map<string, QoS>()
  /** How many have each QoS. */
  readonly #counts: [number, number, number] = [0, 0, 0]
  /** What was searched for last, and found: of a message the broker asks once for each filter that it matches. */
  #found: { readonly qos: QoS; readonly topic: string; readonly most: QoS } | undefined

  get size(): number {
    return this.#granted.size
  }

  has(filter: string): boolean {
    return this.#granted.has(filter)
  }

  set(filter: string, qos: QoS): void {
    this.delete(filter)
    this.#granted.set(filter, qos)
    this.#counts[qos]++
    this.#found = undefined
  }

  delete(filter: string): void {
    const qos = this.#granted.get(filter)
    if (qos === undefined) return
    this.#granted.delete(filter)
    this.#counts[qos]--
    this.#found = undefined
  }

  /** The QoS at which a message that was published at `qos` is delivered [MQTT-3.3.5-1, MQTT-3.8.4-6]. */
  atMost(qos: QoS, topic: string): QoS {
    const [zeros, ones, twos] = this.#counts
    // Nearly always all are alike. A message may be older than the UNSUBSCRIBE of its filter: then none matches.
    if (qos === 0 || zeros + ones + twos === 0) return qos
    if (ones + twos === 0) return 0
    if (zeros + twos === 0) return 1
    if (zeros + ones === 0) return qos
    if (this.#found?.qos === qos && this.#found.topic === topic) return this.#found.most
    const most = this.#search(qos, topic)
    this.#found = { qos, topic, most }
    // All filters that a message matches ask within one turn; 500 of 1,000 would search for half a second.
    if (topic.length > MAX_KEPT_TOPIC_LENGTH) {
      queueMicrotask(() => {
        this.#found = undefined
      })
    }
    return most
  }

  #search(qos: QoS, topic: string): QoS {
    let highest: QoS | undefined
    for (const [filter, granted] of this.#granted) {
      if ((highest !== undefined && granted <= highest) || !matches(filter, topic)) continue
      if (granted >= qos) return qos
      highest = granted
    }
    return highest ?? qos
  }
}
