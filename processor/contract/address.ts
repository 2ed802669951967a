export interface Address {
  readonly host: string
  readonly port: number
}

/**
 * Splits `host:port`. A host with colons, such as an IPv6 address, may stand in brackets, as Kafka and URLs write it.
 */
export function hostAndPort(address: string): Address {
  const colon = address.lastIndexOf(':')
  const host = address.slice(0, colon)
  return { host: BRACKETED.exec(host)?.[1] ?? host, port: Number(address.slice(colon + 1)) }
}

const BRACKETED = /^\[(.*)\]$/

/** Writes `host:port`, with brackets around a host that has colons. */
export function addressOf({ host, port }: Address): string {
  return `${host.includes(':') ? `[${host}]` : host}:${port}`
}

const LOOPBACK = /^(localhost|127(\.\d{1,3}){3}|::1|::ffff:127(\.\d{1,3}){3})$/i

/** Only this machine reaches what listens on `host`. */
export function isLoopback(host: string): boolean {
  return LOOPBACK.test(host)
}
