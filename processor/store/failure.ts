/** What the database itself says: abstract-level wraps it where the database could not be opened. */
export function databaseFailure(error: unknown): { readonly code: string | undefined; readonly message: string } {
  const { code, message, cause } = error as { code?: string; message: string; cause?: unknown }
  return code === 'LEVEL_DATABASE_NOT_OPEN' && cause instanceof Error ? databaseFailure(cause) : { code, message }
}
