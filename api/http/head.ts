import type { onSendHookHandler } from 'fastify'
import type { Api } from '../app.ts'

/**
 * HEAD tells the length that GET would, or none (RFC 9110 section 8.6). Fastify takes the body of a HEAD away before it is
 * compressed; here that is the last step but one. After whatever else has to do with bodies, before the routes.
 */
export function answerHeadAsGet(api: Api): void {
  api.addHook('onRoute', (route) => {
    if (route.method !== 'HEAD') return
    const [takeBodyAway, ...others] = [route.onSend ?? []].flat()
    if (takeBodyAway !== undefined) route.onSend = [...others, takeBodyAway, tellNoLengthOf304]
  })
}

/** It would be that of the answer 200 (RFC 9110 section 8.6), and not the 0 of a body that is not there. */
const tellNoLengthOf304: onSendHookHandler = (_request, reply, payload, done) => {
  if (reply.statusCode === 304) reply.removeHeader('content-length')
  done(null, payload)
}
