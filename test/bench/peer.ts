import { once } from 'node:events'
import { connect } from 'node:net'
import { pause } from '../../processor/runtime/pause.ts'

const LISTENING_WITHIN_MS = 10_000
const POLL_MS = 20

/** Resolves when something accepts connections at the port. */
export async function untilListening(port: number): Promise<void> {
  const deadline = Date.now() + LISTENING_WITHIN_MS
  for (;;) {
    const socket = connect({ host: '127.0.0.1', port })
    try {
      await once(socket, 'connect')
      return
    } catch (error) {
      if (Date.now() > deadline) throw error
    } finally {
      socket.destroy()
    }
    await pause(POLL_MS)
  }
}
