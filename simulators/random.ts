import { Backoff } from '../processor/runtime/pause.ts'

/** Uniform in [0, 1). */
export type Random = () => number

/** mulberry32: small, fast, good enough to simulate with. Each `stream` of a `seed` is independent of the others. */
export function seededRandom(seed: number, stream: number): Random {
  let state = Math.imul(seed ^ 0x9e3779b9, 0x85ebca6b) ^ Math.imul(stream + 1, 0xc2b2ae35)
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296
  }
}

/** Pauses between attempts to connect. They are random, so that a fleet that lost its broker does not return in one wave. */
export class JitteredBackoff {
  readonly #minMs: number
  readonly #random: Random
  readonly #bound: Backoff

  constructor(minMs: number, maxMs: number, random: Random) {
    this.#minMs = minMs
    this.#random = random
    this.#bound = new Backoff(minMs, maxMs)
  }

  /** Milliseconds: half the minimum, and a random part of a bound that doubles with each attempt. */
  next(): number {
    return this.#minMs / 2 + this.#random() * this.#bound.next()
  }

  reset(): void {
    this.#bound.reset()
  }
}
