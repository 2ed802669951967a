import { execFileSync, spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { createClient } from '@redis/client'
import { endsWithUs, freePorts, Program } from '../../simulators/program.ts'
import { untilListening } from './peer.ts'

const REDIS_FASTIFY = fileURLToPath(new URL('redis-fastify.ts', import.meta.url))
/** Documents set at once. */
const CHUNK = 1_000

/** The version of Debian's redis-server. Throws when it is not there. */
export function redisVersion(): string {
  try {
    return /v=(\S+)/.exec(execFileSync('redis-server', ['--version'], { encoding: 'utf8' }))?.[1] ?? 'unknown'
  } catch (error) {
    throw new Error('redis-server, the peer, is not on PATH: apt-get install redis-server', { cause: error })
  }
}

/** The peer: documents in Redis, in memory alone, and one Fastify process that answers them. */
export class RedisPeer implements AsyncDisposable {
  readonly port: number
  readonly #stop: () => Promise<unknown>

  private constructor(port: number, stop: () => Promise<unknown>) {
    this.port = port
    this.#stop = stop
  }

  /** `documents`: by device id, the JSON that is to be answered. */
  static async start(documents: ReadonlyMap<string, string>): Promise<RedisPeer> {
    const [redisPort, port] = (await freePorts(2)) as [number, number]
    const flags = ['--bind', '127.0.0.1', '--port', String(redisPort), '--save', '', '--appendonly', 'no']
    const redis = spawn('redis-server', flags, { stdio: 'ignore' })
    endsWithUs(redis)
    await untilListening(redisPort)
    await fill(redisPort, documents)
    const fastify = new Program(REDIS_FASTIFY, [String(port), String(redisPort)])
    await untilListening(port)
    return new RedisPeer(port, async () => {
      await fastify.kill()
      redis.kill('SIGKILL')
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stop()
  }
}

async function fill(port: number, documents: ReadonlyMap<string, string>): Promise<void> {
  const client = await createClient({ socket: { host: '127.0.0.1', port } }).connect()
  const entries = [...documents]
  for (let from = 0; from < entries.length; from += CHUNK) await client.mSet(entries.slice(from, from + CHUNK))
  client.destroy()
}
