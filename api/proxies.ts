import { isIP } from 'node:net'
import { ConfigurationError } from '../processor/contract/errors.ts'

/** Names that proxy-addr, which Fastify reads X-Forwarded-For with, knows. */
const NETWORKS = new Set(['loopback', 'linklocal', 'uniquelocal'])

/** Checks a list for Fastify's `trustProxy`: `address,network/bits,name,…`. Throws ConfigurationError. */
export function trustedProxies(list: string | undefined): string | undefined {
  for (const proxy of list?.split(',') ?? []) {
    if (NETWORKS.has(proxy) || isNetwork(proxy)) continue
    const rule = `an address, a network/bits, or one of ${[...NETWORKS].join(', ')}`
    const message = `HTTP_TRUSTED_PROXIES: ${JSON.stringify(proxy)} is none of ${rule}`
    throw new ConfigurationError('INVALID_CONFIGURATION', message)
  }
  return list
}

function isNetwork(proxy: string): boolean {
  const [address = '', bits, ...more] = proxy.split('/')
  const family = isIP(address)
  if (family === 0 || more.length > 0) return false
  return bits === undefined || (/^\d{1,3}$/.test(bits) && Number(bits) <= (family === 4 ? 32 : 128))
}
