import { isIP } from 'node:net'
import { ConfigurationError } from '../../processor/contract/errors.ts'

/** Names that proxy-addr, which Fastify reads X-Forwarded-For with, knows. */
const NETWORKS = new Set(['loopback', 'linklocal', 'uniquelocal'])

/** Checks a list for Fastify's `trustProxy`: `address,network/bits,name,…`. Throws ConfigurationError. */
export function trustedProxies(list: string | undefined): string | undefined {
  for (const proxy of list?.split(',') ?? []) {
    if (NETWORKS.has(proxy) || isNetwork(proxy)) continue
    const rule = `an address, a network/bits of at least 1 bit, or one of ${[...NETWORKS].join(', ')}`
    const message = `HTTP_TRUSTED_PROXIES: ${JSON.stringify(proxy)} is none of ${rule}`
    throw new ConfigurationError('INVALID_CONFIGURATION', message)
  }
  return list
}

function isNetwork(proxy: string): boolean {
  const [address = '', bits, ...more] = proxy.split('/')
  const family = isIP(address)
  if (family === 0 || more.length > 0) return false
  if (bits === undefined) return true
  // Of all addresses nothing is a network for proxy-addr, and every caller could say who it is.
  return /^\d{1,3}$/.test(bits) && Number(bits) >= 1 && Number(bits) <= (family === 4 ? 32 : 128)
}
