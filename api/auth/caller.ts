import type { FastifyRequest } from 'fastify'
import type { Api } from '../app.ts'

/** What a token may be used for, as its `scope` claim names it (RFC 8693 section 4.2). */
export type Scope = 'devices:read' | 'devices:write' | 'ops:read'

declare module 'fastify' {
  interface FastifyContextConfig {
    /** What a caller needs for the route, all of it; null: it is open to anyone. Every route says. */
    readonly scope?: Scope | readonly Scope[] | null
  }
  interface FastifyRequest {
    /** Read it by `callerOf`. Null until the caller is known. */
    caller: Caller | null
  }
}

/** Who asks, and what it may ask. */
export interface Caller {
  readonly subject: string | undefined
  readonly scopes: ReadonlySet<Scope>
  /** It may see the devices whose id starts with one of these, ascending, none the beginning of another; undefined: all. */
  readonly prefixes: readonly string[] | undefined
  /** Epoch ms; a stream ends then. Undefined: never. */
  readonly expiresAt: number | undefined
}

/** What a route's `config` says when it reads, or writes, devices. */
export const READS_DEVICES: { readonly scope: Scope } = { scope: 'devices:read' }
export const WRITES_DEVICES: { readonly scope: Scope } = { scope: 'devices:write' }

export const SCOPES: ReadonlySet<Scope> = new Set<Scope>(['devices:read', 'devices:write', 'ops:read'])

const ANYONE: Caller = {
  subject: undefined,
  scopes: SCOPES,
  prefixes: undefined,
  expiresAt: undefined,
}

/** Every request comes from one who may do all. Before the routes. */
export function letAnyoneDoAll(api: Api): void {
  api.decorateRequest('caller', { getter: () => ANYONE })
}

/** Refuses at the start a route that does not say what a caller needs. Before the routes. */
export function requireScopes(api: Api): void {
  api.addHook('onRoute', ({ method, url, config }) => {
    if (config?.scope === undefined) throw new Error(`${String(method)} ${url} does not say the scope that it needs`)
  })
}

export function callerOf(request: FastifyRequest): Caller {
  const { caller } = request
  // Nobody is let through for want of a check.
  if (caller === null) throw new Error(`the caller of ${request.url} is not known`)
  return caller
}

export function maySee({ prefixes }: Caller, deviceId: string): boolean {
  if (prefixes === undefined) return true
  for (const prefix of prefixes) if (deviceId.startsWith(prefix)) return true
  return false
}

/**
 * Of ids in ascending order, those that the caller may see and that come after `after`, come after the answer: `after`
 * itself, or the end of what lies before the next prefix; null: there are none.
 */
export function visibleAfter({ prefixes }: Caller, after: string | undefined): string | undefined | null {
  if (prefixes === undefined) return after
  for (const prefix of prefixes) {
    if (after !== undefined && after.startsWith(prefix)) return after
    if (after === undefined || prefix > after) return justBefore(prefix)
  }
  return null
}

/** A text before every id that starts with `prefix`, and after every id before those: ids have no character over `z`. */
function justBefore(prefix: string): string {
  const last = prefix.length - 1
  return `${prefix.slice(0, last)}${String.fromCharCode(prefix.charCodeAt(last) - 1)}\x7f`
}

/** As `Caller.prefixes` wants them. */
export function disjoint(prefixes: readonly string[]): string[] {
  const kept: string[] = []
  for (const prefix of [...new Set(prefixes)].sort()) {
    const before = kept.at(-1)
    if (before === undefined || !prefix.startsWith(before)) kept.push(prefix)
  }
  return kept
}
