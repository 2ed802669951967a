import type { IncomingMessage } from 'node:http'

/** What a caller may name its request; another name is ignored. It comes into logs and headers as it is. */
const NAME = /^[A-Za-z0-9._~:+/=@-]{1,128}$/

export type NameOf = (request: Pick<IncomingMessage, 'headers'>) => string

/** Names requests: as the caller does in `X-Request-Id`, else `<prefix>-<number>`. */
export function requestNames(prefix: string): NameOf {
  let last = 0
  return ({ headers }) => {
    const given = headers['x-request-id']
    if (typeof given === 'string' && NAME.test(given)) return given
    last += 1
    return `${prefix}-${last.toString(36)}`
  }
}
