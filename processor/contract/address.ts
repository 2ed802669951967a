export interface Address {
  readonly host: string
  readonly port: number
}

/** Of `host:port`. A host that has colons itself, as IPv6 has, may stand in brackets; Kafka and URLs have it so. */
export function hostAndPort(address: string): Address {
  const colon = address.lastIndexOf(':')
  const host = address.slice(0, colon)
  return { host: BRACKETED.exec(host)?.[1] ?? host, port: Number(address.slice(colon + 1)) }
}

const BRACKETED = /^\[(.*)\]$/

/** `host:port`, in which a host that has colons itself stands in brackets. */
export function addressOf({ host, port }: Address): string {
  return `${host.includes(':') ? `[${host}]` : host}:${port}`
}
