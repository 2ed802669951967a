import type { FieldError } from './problem.ts'

/** The scheme and the authority of a target in absolute form (RFC 9112 section 3.2.2). */
const ORIGIN = /^https?:\/\/[^/?#]*/i

/** The path of a request target, as routes are found by it. Its percent-encoding must be that of UTF-8. */
export function pathOf(target: string): string {
  return decodeURI(target.replace(ORIGIN, '').split(/[?#]/, 1)[0] || '/')
}

/**
 * What is wrong with the query of a request target. Fastify takes a percent-encoding that is not UTF-8 as it stands there:
 * devices would be looked for by `M%FCnchen`, and none be found.
 */
export function queryFault(target: string): FieldError | undefined {
  const at = target.indexOf('?')
  if (at < 0 || target.indexOf('%', at) < 0) return undefined
  for (const parameter of target.slice(at + 1).split('&')) {
    if (isDecodable(parameter)) continue
    const name = parameter.split('=', 1)[0] as string
    return { field: isDecodable(name) ? name : 'query', message: 'has a percent-encoding that is not UTF-8' }
  }
  return undefined
}

function isDecodable(text: string): boolean {
  try {
    decodeURIComponent(text)
    return true
  } catch {
    return false
  }
}
