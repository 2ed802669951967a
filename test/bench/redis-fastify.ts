import { createClient } from '@redis/client'
import { fastify } from 'fastify'

/** The peer of the api figures: the same framework, answering the same documents by one GET, or one MGET, of Redis. */
const [port, redisPort] = process.argv.slice(2)
const redis = await createClient({ socket: { host: '127.0.0.1', port: Number(redisPort) } }).connect()
const app = fastify()
const JSON_TYPE = 'application/json; charset=utf-8'

app.get<{ Params: { deviceId: string } }>('/v1/devices/:deviceId', async (request, reply) => {
  const document = await redis.get(request.params.deviceId)
  reply.code(document === null ? 404 : 200).header('content-type', JSON_TYPE)
  return document ?? '{}'
})

app.post<{ Body: { deviceIds: string[] } }>('/v1/devices/batch-get', async (request, reply) => {
  const documents = await redis.mGet(request.body.deviceIds)
  reply.code(documents.includes(null) ? 404 : 200).header('content-type', JSON_TYPE)
  return `{"results":[${documents.join(',')}]}`
})

await app.listen({ port: Number(port), host: '127.0.0.1' })
