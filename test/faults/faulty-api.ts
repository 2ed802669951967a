import { type IncomingMessage, Server, type ServerResponse } from 'node:http'

/**
 * `node main.ts` with an API that breaks what it promises: it forgets the conditions of writes, answers who asks at a
 * position what it had told at first, counts 9 or 99 devices, and tells streams no more after a while.
 */
const first = new Map<string, Buffer>()
/** Writes of a stream that get through: about so many events. */
const TOLD = 10

type End = (chunk: string | Buffer, ...more: unknown[]) => ServerResponse

const emit = Reflect.get(Server.prototype, 'emit') as (this: Server, name: string, ...rest: unknown[]) => boolean
Server.prototype.emit = function (this: Server, name: string, ...rest: unknown[]): boolean {
  if (name === 'request' && spoil(...(rest as [IncomingMessage, ServerResponse]))) return true
  return emit.call(this, name, ...rest)
}

/** Whether the request is answered already. */
function spoil(request: IncomingMessage, response: ServerResponse): boolean {
  const [path = '', query = ''] = (request.url ?? '').split('?')
  delete request.headers['if-match']
  const end = response.end.bind(response) as End
  const answer = (change: (body: Buffer) => Buffer): void => {
    response.end = ((chunk: string | Buffer, ...more: unknown[]) => {
      return end(response.statusCode === 200 ? change(Buffer.from(chunk as Buffer)) : chunk, ...more)
    }) as typeof response.end
  }
  if (/^\/v1\/devices\/[a-z]+-\d$/.test(path) && request.method === 'GET') {
    const had = query === '' ? undefined : first.get(path)
    if (had !== undefined) {
      response.writeHead(200, { 'content-type': 'application/json' }).end(had)
      return true
    }
    answer((body) => {
      if (!first.has(path)) first.set(path, body)
      return body
    })
  } else if (path === '/v1/devices/count') {
    answer((body) => Buffer.from(body.toString().replace(/(?<="count":)\d+/, (count) => '9'.repeat(count.length))))
  } else if (path.endsWith('/changes')) {
    const write = response.write.bind(response) as (chunk: unknown) => boolean
    let left = TOLD
    response.write = ((chunk: unknown) => left-- <= 0 || write(chunk)) as typeof response.write
  }
  return false
}

await import('../../main.ts')
