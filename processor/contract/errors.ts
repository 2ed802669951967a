import { addressOf } from './address.ts'

/**
 * The error classes of Tidemark. Each class names what its receiver must do next; `code` says what happened.
 * Bad device payloads are not errors: they are data, and go to the dead letters.
 */
export type ErrorCode =
  | 'LOG_UNAVAILABLE'
  | 'BROKERS_UNREACHABLE'
  | 'LOG_NO_SPACE'
  | 'LOG_CLOSED'
  | 'LOG_CORRUPTED'
  | 'CLAIM_FENCED'
  | 'OFFSET_OUT_OF_RANGE'
  | 'RECORD_TOO_LARGE'
  | 'STORE_CORRUPTED'
  | 'STORE_LOCKED'
  | 'STORE_UNAVAILABLE'
  | 'PARTITION_UNAVAILABLE'
  | 'POSITION_NOT_REACHED'
  | 'NOT_OWNER'
  | 'INVALID_CONFIGURATION'
  | 'PORT_UNAVAILABLE'
  | 'FOLDER_UNAVAILABLE'
  | 'LOG_MISMATCH'

export abstract class TidemarkError extends Error {
  readonly code: ErrorCode

  constructor(code: ErrorCode, message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause })
    this.name = new.target.name
    this.code = code
  }
}

/**
 * Nothing was decided: wait and try the same again. If time alone does not help, the message says what a person must do. A
 * failed append may still have reached the log.
 */
export class RetryableError extends TidemarkError {}

/** A newer epoch holds the partition: drop the task and write nothing more. */
export class FencedError extends TidemarkError {
  constructor(partition: number, epoch: number) {
    super(
      'CLAIM_FENCED',
      `partition ${partition} is held by an epoch newer than ${epoch}; this claim can write no more`,
    )
  }
}

/** A copy is damaged: wipe it and restore it from the changelog. */
export class StoreCorruptedError extends TidemarkError {
  constructor(message: string, cause?: unknown) {
    super('STORE_CORRUPTED', message, cause)
  }
}

/**
 * The log is damaged: wipe nothing, as copies may be all that is left of it; stop the partition, and try again seldom. On
 * Kafka another leader may have the log whole.
 */
export class LogCorruptedError extends TidemarkError {
  constructor(message: string, cause?: unknown) {
    super('LOG_CORRUPTED', message, cause)
  }
}

/** The offset is not in the log: retention has passed it, or it never existed. Wipe the copy and restore it from the start. */
export class OffsetOutOfRangeError extends TidemarkError {
  constructor(message: string, cause?: unknown) {
    super('OFFSET_OUT_OF_RANGE', message, cause)
  }
}

/**
 * Whether a copy must be wiped and restored: it is damaged, or the changelog has lost the records that it lacks. `restoring`:
 * the error came from reading the changelog. Damage of the log never wipes a copy.
 */
export function isBeyondUse(error: unknown, restoring: boolean): boolean {
  return error instanceof StoreCorruptedError || (restoring && error instanceof OffsetOutOfRangeError)
}

/** No copy can answer now: ask again after `retryAfterSeconds`. */
export class UnavailableError extends TidemarkError {
  readonly retryAfterSeconds: number

  constructor(code: ErrorCode, message: string, retryAfterSeconds = 1, cause?: unknown) {
    super(code, message, cause)
    this.retryAfterSeconds = retryAfterSeconds
  }
}

export function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}

/** A person must change something outside the program; the process exits with code 2. */
export class ConfigurationError extends TidemarkError {}

/** The number of partitions has changed, as `found` says. */
export function repartitioned(found: string): ConfigurationError {
  const way =
    'devices stay in the partition that they began in, so the number cannot be changed, and Kafka takes no partitions ' +
    'away: use another TOPIC_PREFIX, which begins with no devices'
  return new ConfigurationError('LOG_MISMATCH', `${found}: ${way}`)
}

interface Listening {
  readonly host: string
  readonly port: number
  readonly variable: string
  readonly hostVariable?: string | undefined
}

/** `what`: MQTT, the API, …; `variable` sets its port, `hostVariable` its host. */
export function portUnavailable(
  what: string,
  { host, port, variable, hostVariable = 'HOST' }: Listening,
  error: unknown,
): ConfigurationError {
  const code = error instanceof Error && 'code' in error ? String(error.code) : ''
  const at = addressOf({ host, port })
  const ways: Record<string, string> = {
    EADDRINUSE: `another process listens on ${at} (ss -ltnp 'sport = :${port}' shows which); stop it or set ${variable}`,
    EACCES: `this user may not listen on ${at}; set ${variable} to 1024 or more`,
    EADDRNOTAVAIL: `${host} is no address of this machine; set ${hostVariable}`,
    ENOTFOUND: `${host} is not a known host name; set ${hostVariable}`,
  }
  return new ConfigurationError(
    'PORT_UNAVAILABLE',
    `${what} cannot listen: ${ways[code] ?? `${at}: ${String(error)}; set ${hostVariable} or ${variable}`}`,
    error,
  )
}

/** Advice for an operator against a failure of the database; `otherwise` when its message says nothing useful. */
export function wayOut(code: string | undefined, message: string, otherwise = 'see to its volume'): string {
  if (code === 'LEVEL_NO_SPACE') return 'free space on its volume'
  // RocksDB has no code of its own for it.
  return message.includes('Too many open files') ? 'raise the limit of open files (ulimit -n)' : otherwise
}

/** The error of the database itself, which abstract-level wraps when the database cannot be opened. */
export function databaseFailure(error: unknown): { readonly code: string | undefined; readonly message: string } {
  const { code, message, cause } = error as { code?: string; message: string; cause?: unknown }
  return code === 'LEVEL_DATABASE_NOT_OPEN' && cause instanceof Error ? databaseFailure(cause) : { code, message }
}
