import type { FastifyRequest } from 'fastify'

/** The `Link` to what `request` asks for, from `cursor` on. */
export function nextPage({ query, routeOptions }: FastifyRequest, cursor: string): string {
  const parameters = new URLSearchParams(query as Record<string, string>)
  parameters.set('cursor', cursor)
  return `<${routeOptions.url}?${parameters.toString()}>; rel="next"`
}
