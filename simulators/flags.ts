import { ConfigurationError } from '../processor/contract/errors.ts'

/** Throws ConfigurationError that names the flag and its range. */
export function number(flag: string, text: string, min: number, max: number): number {
  const value = text.trim() === '' ? Number.NaN : Number(text)
  if (value >= min && value <= max) return value
  throw invalid(`${flag} is ${JSON.stringify(text)}: give a number from ${min} to ${max}`)
}

/** As `number`. */
export function integer(flag: string, text: string, min: number, max: number): number {
  const value = text.trim() === '' ? Number.NaN : Number(text)
  if (Number.isInteger(value) && value >= min && value <= max) return value
  throw invalid(`${flag} is ${JSON.stringify(text)}: give a whole number from ${min} to ${max}`)
}

/** What parseArgs threw, which explains over several lines, in one; `way`: what to do. */
export function refused(error: unknown, way: string): ConfigurationError {
  return invalid(`${(error as Error).message.split(/\.?\n|\. /, 1)[0]}; ${way}`)
}

export function invalid(message: string): ConfigurationError {
  return new ConfigurationError('INVALID_CONFIGURATION', message)
}

/** Uniform in [0, 1). */
export type Random = () => number

/** mulberry32: small, fast, good enough to simulate with. One `seed` gives as many independent streams as are asked for. */
export function seededRandom(seed: number, stream: number): Random {
  let state = Math.imul(seed ^ 0x9e3779b9, 0x85ebca6b) ^ Math.imul(stream + 1, 0xc2b2ae35)
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296
  }
}
