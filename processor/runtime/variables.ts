/**
 * What an environment variable may be, as few lines as it takes: every role reads the environment before it does anything
 * else, and a schema library is 680 modules to load for that.
 */
export interface Variable<T> {
  /** The value that `text` stands for. */
  readonly read: (text: string) => { readonly value: T } | { readonly rule: string }
  /** When the variable is not set. */
  readonly unset: T
  readonly description: string | undefined
  /** No error and no log line may show its value. */
  readonly secret: boolean
}

/** D: what the variable is when it is not set. */
interface Words<D> {
  readonly default?: D
  readonly description?: string
}

/** What it takes to be a number that has lost nothing. */
const DIGITS = /^\d{1,15}$/

export function integer<D extends number | undefined = undefined>(
  minimum: number,
  maximum: number,
  words: Words<D> = {},
): Variable<number | D> {
  return variable(words, (digits) => {
    const value = DIGITS.test(digits) ? Number(digits) : Number.NaN
    return value >= minimum && value <= maximum
      ? { value }
      : { rule: `must be an integer from ${minimum} to ${maximum}` }
  })
}

export function text<D extends string | undefined = undefined>(
  words: Words<D> & { readonly pattern?: RegExp } = {},
): Variable<string | D> {
  const { pattern } = words
  return variable(words, (value) =>
    pattern === undefined || pattern.test(value) ? { value } : { rule: `must match ${pattern.source}` },
  )
}

/** Of a value that no error and no log line may show. */
export function secret(pattern: RegExp, description: string): Variable<string | undefined> {
  return { ...text({ pattern, description }), secret: true }
}

export function choice<const T extends string, D extends T | undefined = undefined>(
  of: readonly T[],
  words: Words<D> = {},
): Variable<T | D> {
  return variable(words, (given) => {
    const value = of.find((one) => one === given)
    return value === undefined ? { rule: `must be one of ${of.join(', ')}` } : { value }
  })
}

function variable<T, D>({ default: unset, description }: Words<D>, read: Variable<T>['read']): Variable<T | D> {
  return { read, unset: unset as D, description, secret: false }
}

/**
 * Why `value` is not what somebody wanted a variable to be, whatever it is for: files of variables are read in many ways,
 * and a folder whose name ends with a carriage return would be made, and be empty. Undefined: it may be.
 */
export function mangled(value: string, hidden = false): string | undefined {
  if (/\p{Cc}/u.test(value)) return 'has a control character; where it is \\r at the end, its file has CRLF line ends'
  // A secret is what another has chosen, and could not be given otherwise.
  if (hidden) return undefined
  if (/^(["']).*\1$/.test(value)) return 'has quotes around it, which some readers of files (docker --env-file) keep'
  if (value !== value.trim()) return 'has white space at an end'
  return undefined
}
