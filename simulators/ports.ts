import { randomInt } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type ListenOptions } from 'node:net'

/** Below the ports that Linux gives to connections and to port 0 (`ip_local_port_range`, from 32,768 on). */
const FIRST_PORT = 20_000
const PAST_PORT = 32_000
/** How many ports are tried for one. */
const MAX_TRIES = 200

/**
 * Ports of 127.0.0.1 that are this process's own until it ends, also while nobody listens on them: for a process that
 * starts later, or starts again. Throws when no port is to be had.
 */
export function freePorts(count: number): Promise<number[]> {
  return Promise.all(Array.from({ length: count }, freePort))
}

async function freePort(): Promise<number> {
  for (let i = 0; i < MAX_TRIES; i++) {
    const port = randomInt(FIRST_PORT, PAST_PORT)
    if (!(await claimed(port))) continue
    const probe = await listening({ port, host: '127.0.0.1' })
    if (probe === undefined) continue
    await once(probe.close(), 'close')
    return port
  }
  throw new Error(`none of ${MAX_TRIES} ports from ${FIRST_PORT} to ${PAST_PORT - 1} of 127.0.0.1 is free`)
}

/** An abstract socket (unix(7)) is the claim: one process can have it, and it is gone with that process. */
async function claimed(port: number): Promise<boolean> {
  const claim = await listening({ path: `\0tidemark-port-${port}` })
  claim?.unref()
  return claim !== undefined
}

/** undefined when another has the address. */
async function listening(address: ListenOptions) {
  const server = createServer().listen(address)
  try {
    await once(server, 'listening')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EADDRINUSE') return undefined
    throw error
  }
  return server
}
