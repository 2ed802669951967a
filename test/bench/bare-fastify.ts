import { fastify } from 'fastify'

/** The peer of the GET figure, and of the batch-get one: the same framework, answering the same bytes from memory. */
const [port, body = '{}'] = process.argv.slice(2)
const app = fastify()
app.get('/v1/devices/:deviceId', (_request, reply) => {
  reply.header('content-type', 'application/json; charset=utf-8').send(body)
})
app.post('/v1/devices/batch-get', (_request, reply) => {
  reply.header('content-type', 'application/json; charset=utf-8').send(body)
})
await app.listen({ port: Number(port), host: '127.0.0.1' })
