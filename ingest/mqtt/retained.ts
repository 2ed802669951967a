import { Readable } from 'node:stream'
import { setImmediate as turn } from 'node:timers/promises'
import { QlobberTrue } from 'qlobber'
import { ownCopy } from '../../processor/contract/json.ts'
import type { Limits } from '../limits.ts'
import type { IngestMetrics } from '../metrics.ts'

export interface RetainedPacket {
  readonly topic: string
  readonly payload: Buffer
}

/** How long a search for retained messages may hold the event loop, ms. */
const SLICE_MS = 2
/** Topics between two looks at the clock. */
const SLICE_TOPICS = 16

/** MQTT 3.1.1 section 4.7.1: `+` matches an empty level too. */
const WILDCARDS = { wildcard_one: '+', wildcard_some: '#', separator: '/', match_empty_levels: true }

/** The last message with RETAIN of each topic (MQTT 3.1.1 section 3.3.1.3), in memory. */
export class RetainedStore<P extends RetainedPacket> {
  readonly #packets = new Map<string, P>()
  readonly #limits: Limits
  readonly #metrics: IngestMetrics
  #bytes = 0

  constructor(limits: Limits, metrics: IngestMetrics) {
    this.#limits = limits
    this.#metrics = metrics
  }

  /** An empty payload removes the message of the topic; a message beyond the bounds is not kept. */
  put(packet: P): void {
    const { topic, payload } = packet
    const before = this.#packets.get(topic)
    const bytes = this.#bytes - keptBytes(before)
    if (payload.length === 0) {
      this.#packets.delete(topic)
      this.#bytes = bytes
      return
    }
    const full = before === undefined && this.#packets.size >= this.#limits.maxRetained
    if (full || bytes + keptBytes(packet) > this.#limits.maxRetainedBytes) {
      this.#metrics.boundHits.add('retained')
      return
    }
    this.#packets.set(topic, { ...packet, payload: ownCopy(payload) })
    this.#bytes = bytes + keptBytes(packet)
  }

  /** Packets whose topic matches one of `filters`, each once. */
  matching(filters: readonly string[]): Readable {
    return Readable.from(this.#matching(filters))
  }

  /** In slices, as each topic is tested against all filters, of which there may be a thousand. */
  async *#matching(filters: readonly string[]): AsyncGenerator<P> {
    const plain = new Set(filters.filter((filter) => !isPattern(filter)))
    const patterns = filters.filter(isPattern)
    if (patterns.length === 0) {
      for (const topic of plain) {
        const packet = this.#packets.get(topic)
        if (packet !== undefined) yield packet
      }
      return
    }
    const matcher = matcherOf(patterns)
    // Wildcards of the first level do not match a topic that begins with `$` [MQTT-4.7.2-1].
    const reserved = matcherOf(patterns.filter((filter) => filter.startsWith('$')))
    let looked = 0
    let until = performance.now() + SLICE_MS
    for (const [topic, packet] of this.#packets) {
      if (plain.has(topic) || (topic.startsWith('$') ? reserved : matcher).test(topic)) yield packet
      if (++looked % SLICE_TOPICS > 0 || performance.now() < until) continue
      await turn()
      until = performance.now() + SLICE_MS
    }
  }
}

function isPattern(filter: string): boolean {
  return /[+#]/.test(filter)
}

function matcherOf(filters: readonly string[]): QlobberTrue {
  const matcher = new QlobberTrue(WILDCARDS)
  for (const filter of filters) matcher.add(filter)
  return matcher
}

function keptBytes(packet: RetainedPacket | undefined): number {
  return packet === undefined ? 0 : packet.topic.length + packet.payload.length
}
