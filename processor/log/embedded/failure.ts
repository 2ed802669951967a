/** What helps against a failure with such a code and message; `otherwise` against those that do not tell. */
export function wayOut(code: string | undefined, message: string, otherwise = 'see to its volume'): string {
  if (code === 'LEVEL_NO_SPACE') return 'free space on its volume'
  // RocksDB has no code of its own for it.
  return message.includes('Too many open files') ? 'raise the limit of open files (ulimit -n)' : otherwise
}

/** What the database itself says: abstract-level wraps it where the database could not be opened. */
export function databaseFailure(error: unknown): { readonly code: string | undefined; readonly message: string } {
  const { code, message, cause } = error as { code?: string; message: string; cause?: unknown }
  return code === 'LEVEL_DATABASE_NOT_OPEN' && cause instanceof Error ? databaseFailure(cause) : { code, message }
}
