import { Server, type Socket } from 'node:net'

/** `node main.ts` with a fault: once so many acknowledgements have left, all MQTT connections are closed, and none is taken. */
const ACKNOWLEDGEMENTS = 20
const PUBACK = 0x40
const { MQTT_PORT } = process.env
const sockets = new Set<Socket>()
let acknowledgements = 0

const emit = Reflect.get(Server.prototype, 'emit') as (this: Server, name: string, ...rest: unknown[]) => boolean
Server.prototype.emit = function (this: Server, name: string, ...rest: unknown[]): boolean {
  const address = this.address()
  const isMqtt = typeof address === 'object' && String(address?.port) === MQTT_PORT
  if (name !== 'connection' || !isMqtt) return emit.call(this, name, ...rest)
  const [socket] = rest as [Socket]
  if (acknowledgements >= ACKNOWLEDGEMENTS) {
    socket.destroy()
    return true
  }
  sockets.add(socket)
  watch(socket)
  return emit.call(this, name, ...rest)
}

/** The fleet of a drill is connected, all of it, before it sends. */
function watch(socket: Socket): void {
  const write = socket.write.bind(socket) as (...args: unknown[]) => boolean
  socket.write = (chunk: unknown, ...rest: unknown[]) => {
    if (Buffer.isBuffer(chunk) && chunk[0] === PUBACK && ++acknowledgements === ACKNOWLEDGEMENTS) setImmediate(close)
    return write(chunk, ...rest)
  }
}

function close(): void {
  for (const socket of sockets) socket.destroy()
}

await import('../../main.ts')
