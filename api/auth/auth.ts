import type { onRequestHookHandler } from 'fastify'
import type { Api } from '../app.ts'
import type { Caller, Scope } from './caller.ts'
import { insufficientScope, type Tokens } from './tokens.ts'

/** Every route that names scopes wants a token that has them all; before its body is read. Before the routes. */
export function requireTokens(api: Api, tokens: Tokens): void {
  api.decorateRequest('caller', null)
  const hooks = new Map<string, onRequestHookHandler>()
  api.addHook('onRoute', (route) => {
    const scope = route.config?.scope
    if (scope === undefined || scope === null) return
    const needed = [scope].flat()
    const name = needed.join(' ')
    const hook = hooks.get(name) ?? tokenHook(tokens, needed)
    hooks.set(name, hook)
    const own = [route.onRequest ?? []].flat()
    // A HEAD route is made of its GET route, hooks included.
    if (!own.includes(hook)) route.onRequest = [hook, ...own]
  })
}

function tokenHook(tokens: Tokens, needed: readonly Scope[]): onRequestHookHandler {
  return (request, _reply, done) => {
    const admit = (caller: Caller): void => {
      const lacked = needed.find((scope) => !caller.scopes.has(scope))
      if (lacked !== undefined) return done(insufficientScope(lacked))
      request.caller = caller
      done()
    }
    try {
      const caller = tokens.callerOf(request.headers.authorization)
      // One that is remembered costs no turn of the event loop.
      if (caller instanceof Promise) caller.then(admit, done)
      else admit(caller)
    } catch (error) {
      done(error as Error)
    }
  }
}
