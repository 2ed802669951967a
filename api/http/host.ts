import type { IncomingMessage } from 'node:http'
import { isIPv6 } from 'node:net'

/** RFC 3986 section 3.2.2, but what stands in brackets; it may be empty. IPv4 addresses are among the names. */
const HOST = /^(?:(?:[A-Za-z0-9\-._~!$&'()*+,;=]|%[0-9A-Fa-f]{2})*|\[([^\]]*)\])(?::[0-9]*)?$/
const FUTURE_ADDRESS = /^v[0-9A-Fa-f]+\.[A-Za-z0-9\-._~!$&'()*+,;=:]+$/i

/** Nearly all requests to a process are for one host: what was found of the last is not found again. */
let lastHost = ''

/** Of a Host that is there, once. */
export const NO_HOST = 'is no host'

/** What is wrong with the Host of a request: then the answer is 400 (RFC 9112 section 3.2). HTTP/1.0 had none. */
export function hostFault({ headers, rawHeaders, httpVersion }: IncomingMessage): string | undefined {
  const { host } = headers
  if (host === undefined) return httpVersion === '1.1' ? 'is required' : undefined
  // Node keeps the first, and a proxy in front may have gone by the last.
  let lines = 0
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const name = rawHeaders[i] as string
    if (name.length === 4 && name.toLowerCase() === 'host') lines++
  }
  if (lines > 1) return 'is given more than once'
  if (host === lastHost) return undefined
  if (!isHost(host)) return NO_HOST
  lastHost = host
  return undefined
}

function isHost(text: string): boolean {
  const found = HOST.exec(text)
  if (found === null) return false
  const [, address] = found
  return address === undefined || isIPv6(address) || FUTURE_ADDRESS.test(address)
}
