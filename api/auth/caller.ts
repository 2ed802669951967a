import type { FastifyRequest } from 'fastify'
import type { Api } from '../app.ts'

/** The `scope` claim of a token names these (RFC 8693 section 4.2). */
export type Scope = 'devices:read' | 'devices:write' | 'ops:read'

declare module 'fastify' {
  interface FastifyContextConfig {
    /** All scopes that the route needs; null: it is open to anyone. Every route must say. */
    readonly scope?: Scope | readonly Scope[] | null
  }
  interface FastifyRequest {
    /** Read it by `callerOf`. It is null until the caller is known. */
    caller: Caller | null
  }
}

export interface Caller {
  readonly subject: string | undefined
  readonly scopes: ReadonlySet<Scope>
  /**
   * The caller may see devices whose id starts with one of these: ascending, none a prefix of another. Undefined: all.
   */
  readonly prefixes: readonly string[] | undefined
  /** Epoch ms at which streams of this caller end. Undefined: never. */
  readonly expiresAt: number | undefined
  /** False once the key that signed the token was withdrawn. Streams end then. */
  readonly isTrusted: () => boolean
}

export const READS_DEVICES: { readonly scope: Scope } = { scope: 'devices:read' }
export const WRITES_DEVICES: { readonly scope: Scope } = { scope: 'devices:write' }

export const SCOPES: ReadonlySet<Scope> = new Set<Scope>(['devices:read', 'devices:write', 'ops:read'])

const ANYONE: Caller = {
  subject: undefined,
  scopes: SCOPES,
  prefixes: undefined,
  expiresAt: undefined,
  isTrusted: () => true,
}

/** Lets every request do everything. Must be called before the routes are added. */
export function letAnyoneDoAll(api: Api): void {
  api.decorateRequest('caller', { getter: () => ANYONE })
}

/** Refuses at the start any route that names no scope. Must be called before the routes are added. */
export function requireScopes(api: Api): void {
  api.addHook('onRoute', ({ method, url, config }) => {
    if (config?.scope === undefined) throw new Error(`${String(method)} ${url} does not say the scope that it needs`)
  })
}

export function callerOf(request: FastifyRequest): Caller {
  const { caller } = request
  // A forgotten check must not let anyone through.
  if (caller === null) throw new Error(`the caller of ${request.url} is not known`)
  return caller
}

export function maySee({ prefixes }: Caller, deviceId: string): boolean {
  if (prefixes === undefined) return true
  for (const prefix of prefixes) if (deviceId.startsWith(prefix)) return true
  return false
}

/**
 * Among ids in ascending order, returns the place after which the caller's next visible id comes: `after` itself, or
 * the place just before the next prefix. Null: none follows.
 */
export function visibleAfter({ prefixes }: Caller, after: string | undefined): string | undefined | null {
  if (prefixes === undefined) return after
  for (const prefix of prefixes) {
    if (after !== undefined && after.startsWith(prefix)) return after
    if (after === undefined || prefix > after) return justBefore(prefix)
  }
  return null
}

/**
 * Returns a text after every id below `prefix` and before every id that starts with it. Ids have no character above
 * `z`.
 */
function justBefore(prefix: string): string {
  const last = prefix.length - 1
  return `${prefix.slice(0, last)}${String.fromCharCode(prefix.charCodeAt(last) - 1)}\x7f`
}

/** Sorts prefixes and drops those that another one covers. */
export function disjoint(prefixes: readonly string[]): string[] {
  const kept: string[] = []
  for (const prefix of [...new Set(prefixes)].sort()) {
    const before = kept.at(-1)
    if (before === undefined || !prefix.startsWith(before)) kept.push(prefix)
  }
  return kept
}
