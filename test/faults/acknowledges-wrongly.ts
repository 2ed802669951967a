import { Server, type Socket } from 'node:net'

/** `node main.ts` with a fault: now and then it acknowledges a message that nobody sent. */
const EVERY = 20
const PUBACK = 0x40
const { MQTT_PORT } = process.env
let acknowledgements = 0

const emit = Reflect.get(Server.prototype, 'emit') as (this: Server, name: string, ...rest: unknown[]) => boolean
Server.prototype.emit = function (this: Server, name: string, ...rest: unknown[]): boolean {
  const address = this.address()
  const isMqtt = typeof address === 'object' && String(address?.port) === MQTT_PORT
  if (name === 'connection' && isMqtt) spoil(rest[0] as Socket)
  return emit.call(this, name, ...rest)
}

function spoil(socket: Socket): void {
  const write = socket.write.bind(socket) as (...args: unknown[]) => boolean
  socket.write = (chunk: unknown, ...rest: unknown[]) => {
    if (!Buffer.isBuffer(chunk) || chunk[0] !== PUBACK || ++acknowledgements % EVERY !== 0) return write(chunk, ...rest)
    const wrong = Buffer.from(chunk)
    wrong.writeUInt16BE(wrong.readUInt16BE(2) + 7, 2)
    return write(wrong, ...rest)
  }
}

await import('../../main.ts')
