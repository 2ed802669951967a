import { fileURLToPath } from 'node:url'
import { freePorts, Program } from '../../simulators/program.ts'
import { type HttpLoad, type HttpLoadReport, warmHttpLoad } from './http-load.ts'
import { untilListening } from './peer.ts'

const BARE_FASTIFY = fileURLToPath(new URL('bare-fastify.ts', import.meta.url))

/** Fastify that does nothing but to answer `body`, less than 128 KiB, under the load. */
export async function bareFastify(body: string, load: Omit<HttpLoad, 'port'>): Promise<HttpLoadReport> {
  const [port] = (await freePorts(1)) as [number]
  const peer = new Program(BARE_FASTIFY, [String(port), body])
  try {
    await untilListening(port)
    return await warmHttpLoad({ ...load, port })
  } finally {
    await peer.kill()
  }
}
