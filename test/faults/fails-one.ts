import { type IncomingMessage, Server, type ServerResponse } from 'node:http'

/** `node main.ts` with a fault: who asks for one device is told that the server failed. */
const emit = Reflect.get(Server.prototype, 'emit') as (this: Server, name: string, ...rest: unknown[]) => boolean
Server.prototype.emit = function (this: Server, name: string, ...rest: unknown[]): boolean {
  const [request, response] = rest as [IncomingMessage, ServerResponse]
  const one = name === 'request' && request.method === 'GET' && /^\/v1\/devices\/[^/?]+$/.test(request.url ?? '')
  if (!one) return emit.call(this, name, ...rest)
  response.writeHead(500, { 'content-type': 'application/problem+json' }).end('{}')
  return true
}

await import('../../main.ts')
