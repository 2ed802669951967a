import { readlinkSync } from 'node:fs'
import { setPriority } from 'node:os'
import { basename } from 'node:path'

/** The priority of the thread, from -20 (first) to 19 (last): what processes and answers has 0, and 68 times the share. */
const NICE = 19

/** Has this thread yield to all others. On Linux, as elsewhere a thread has no priority of its own. */
export function yieldToOthers(self = '/proc/thread-self'): void {
  if (process.platform !== 'linux') return
  try {
    setPriority(Number(basename(readlinkSync(self))), NICE)
  } catch {
    // No /proc, as in some sandboxes, or none that tells threads; or it may not be done here: then it goes on as it is.
  }
}
