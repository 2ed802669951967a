import { vi } from 'vitest'

/** How long `vi.waitFor` and `vi.waitUntil` look for their condition where a test says nothing else, ms: less than a test has, so that it says what it missed. */
const PATIENCE_MS = 20_000

const { waitFor, waitUntil } = vi
vi.waitFor = (condition, options = {}) => {
  return waitFor(condition, typeof options === 'number' ? options : { timeout: PATIENCE_MS, ...options })
}
vi.waitUntil = (condition, options = {}) => {
  return waitUntil(condition, typeof options === 'number' ? options : { timeout: PATIENCE_MS, ...options })
}
