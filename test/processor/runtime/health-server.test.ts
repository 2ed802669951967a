import { once } from 'node:events'
import { Agent, get, type IncomingMessage } from 'node:http'
import { connect } from 'node:net'
import { text } from 'node:stream/consumers'
import { pino } from 'pino'
import { Registry } from 'prom-client'
import { expect, test } from 'vitest'
import { Endpoint, type Handler, reply } from '../../../processor/runtime/health-server.ts'

/** Its close waits for requests under way for longer than a test has. */
function open(handler?: Handler): Promise<Endpoint> {
  return Endpoint.open({
    host: '127.0.0.1',
    port: 0,
    variable: 'QUERY_PORT',
    checks: async () => [],
    registry: new Registry(),
    logger: pino({ level: 'silent' }),
    drainMs: 600_000,
    ...(handler === undefined ? {} : { handler }),
  })
}

test('an endpoint closes without waiting for a connection on which nothing was asked', async () => {
  const endpoint = await open()
  const [host, port] = endpoint.address.split(':') as [string, string]
  const early = connect({ host, port: Number(port) })
  await once(early, 'connect')
  // Connections are accepted in order.
  const [response] = (await once(get(`http://${endpoint.address}/livez`, { agent: false }), 'response')) as [
    IncomingMessage,
  ]
  await text(response)
  const closed = once(early, 'close')
  await endpoint[Symbol.asyncDispose]()
  await closed
})

test('an endpoint closes with the answer to what is under way, though its connection was kept', async () => {
  const asked = Promise.withResolvers<() => void>()
  const endpoint = await open((_request, response) => {
    asked.resolve(() => reply(response, 200, '{}'))
    return true
  })
  const agent = new Agent({ keepAlive: true })
  const response = once(get(`http://${endpoint.address}/question`, { agent }), 'response')
  const answer = await asked.promise
  const closed = endpoint[Symbol.asyncDispose]()
  answer()
  const [message] = (await response) as [IncomingMessage]
  expect([message.statusCode, await text(message)]).toEqual([200, '{}'])
  await closed
  agent.destroy()
})
