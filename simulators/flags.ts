import { ConfigurationError } from '../processor/contract/errors.ts'

/** Throws ConfigurationError that names the flag and its range. */
export function number(flag: string, text: string, min: number, max: number): number {
  const value = text.trim() === '' ? Number.NaN : Number(text)
  if (value >= min && value <= max) return value
  throw invalid(`${flag} is ${JSON.stringify(text)}: give a number from ${min} to ${max}`)
}

/** Like `number`, for whole numbers. */
export function integer(flag: string, text: string, min: number, max: number): number {
  const value = text.trim() === '' ? Number.NaN : Number(text)
  if (Number.isInteger(value) && value >= min && value <= max) return value
  throw invalid(`${flag} is ${JSON.stringify(text)}: give a whole number from ${min} to ${max}`)
}

/** The error of parseArgs in one line, and the way out of it. */
export function refused(error: unknown, way: string): ConfigurationError {
  return invalid(`${(error as Error).message.split(/\.?\n|\. /, 1)[0]}; ${way}`)
}

export function invalid(message: string, cause?: unknown): ConfigurationError {
  return new ConfigurationError('INVALID_CONFIGURATION', message, cause)
}
