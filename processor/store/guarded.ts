import { RetryableError, StoreCorruptedError } from '../contract/errors.ts'

/** What the database does, with its errors as those of the store: StoreCorruptedError, or RetryableError. */
export async function guarded<T>(operation: () => Promise<T>): Promise<T> {
  try {
    return await operation()
  } catch (error) {
    const { code, message } = error as { code?: string; message: string }
    if (code === 'LEVEL_CORRUPTION') {
      throw new StoreCorruptedError(`the store is damaged and must be restored: ${message}`, error)
    }
    throw new RetryableError('STORE_UNAVAILABLE', `the store cannot be read or written now: ${message}`, error)
  }
}
