import { type IncomingMessage, Server, type ServerResponse } from 'node:http'

/** `node main.ts` with a fault: who asks for one device is given what was the answer at first. */
const first = new Map<string, Buffer>()

const emit = Reflect.get(Server.prototype, 'emit') as (this: Server, name: string, ...rest: unknown[]) => boolean
Server.prototype.emit = function (this: Server, name: string, ...rest: unknown[]): boolean {
  const [request, response] = rest as [IncomingMessage, ServerResponse]
  const one = name === 'request' && request.method === 'GET' && /^\/v1\/devices\/[^/?]+$/.test(request.url ?? '')
  if (!one) return emit.call(this, name, ...rest)
  const url = request.url as string
  const had = first.get(url)
  if (had !== undefined) {
    response.writeHead(200, { 'content-type': 'application/json' }).end(had)
    return true
  }
  const end = response.end.bind(response) as (chunk: unknown, ...more: unknown[]) => ServerResponse
  response.end = ((chunk: string | Buffer, ...more: unknown[]) => {
    if (response.statusCode === 200) first.set(url, Buffer.from(chunk as Buffer))
    return end(chunk, ...more)
  }) as typeof response.end
  return emit.call(this, name, ...rest)
}

await import('../../main.ts')
