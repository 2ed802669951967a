import { Server, type Socket } from 'node:net'
import { CLIENT_ID } from '../../simulators/drill/load/poison.ts'

/** `node main.ts` with a fault: it acknowledges nothing to the device that sends bad payloads. */
const PUBACK = 0x40

const emit = Reflect.get(Server.prototype, 'emit') as (this: Server, name: string, ...rest: unknown[]) => boolean
Server.prototype.emit = function (this: Server, name: string, ...rest: unknown[]): boolean {
  const [socket] = rest as [Socket]
  if (name === 'connection') {
    socket.prependOnceListener('data', (connect: Buffer) => {
      if (connect.includes(CLIENT_ID)) spoil(socket)
    })
  }
  return emit.call(this, name, ...rest)
}

function spoil(socket: Socket): void {
  const write = socket.write.bind(socket) as (...args: unknown[]) => boolean
  socket.write = (chunk: unknown, ...rest: unknown[]) => {
    if (!Buffer.isBuffer(chunk) || chunk[0] !== PUBACK) return write(chunk, ...rest)
    for (const told of rest) if (typeof told === 'function') told()
    return true
  }
}

await import('../../main.ts')
