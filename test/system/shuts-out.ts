import { Server, type Socket } from 'node:net'

/** `node main.ts` with a fault: once MQTT connections have been there for some seconds, all are closed, and none is taken. */
const OPEN_MS = 1_500
const { MQTT_PORT } = process.env
const sockets = new Set<Socket>()
let shut = false

const emit = Reflect.get(Server.prototype, 'emit') as (this: Server, name: string, ...rest: unknown[]) => boolean
Server.prototype.emit = function (this: Server, name: string, ...rest: unknown[]): boolean {
  const address = this.address()
  const isMqtt = typeof address === 'object' && String(address?.port) === MQTT_PORT
  if (name !== 'connection' || !isMqtt) return emit.call(this, name, ...rest)
  const [socket] = rest as [Socket]
  if (shut) {
    socket.destroy()
    return true
  }
  if (sockets.size === 0) setTimeout(close, OPEN_MS)
  sockets.add(socket)
  return emit.call(this, name, ...rest)
}

function close(): void {
  shut = true
  for (const socket of sockets) socket.destroy()
}

await import('../../main.ts')
