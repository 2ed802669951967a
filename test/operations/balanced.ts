import { type ChildProcess, spawn } from 'node:child_process'
import { writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { type CryptoKey, exportJWK, generateKeyPair, SignJWT } from 'jose'
import { Cluster } from '../../simulators/cluster.ts'
import {
  type Exit,
  endsWithUs,
  freePorts,
  type Program,
  removeFolder,
  temporaryFolder,
} from '../../simulators/program.ts'
import { Composition } from './composition.ts'

const NAMES = ['api-1', 'api-2', 'api-3'] as const
const DEADLINE_MS = 60_000
const POLL_MS = 20
const PARTITIONS = 4
/** Between two looks of the balancer at /readyz, ms. A process that stops must be seen to, so it gives notice for longer. */
const CHECK_MS = 200
const NOTICE_SECONDS = 2

export type Api = (typeof NAMES)[number]

export interface Request {
  readonly method?: string
  readonly body?: object
  readonly headers?: Readonly<Record<string, string>>
  readonly token?: string | undefined
}

export interface Reply {
  readonly status: number
  readonly text: string
  /** Who answered; undefined: the balancer itself. */
  readonly by: Api | undefined
  readonly headers: Headers
}

/**
 * One processor, one ingest and three API processes, which know nothing of each other, on a Kafka that is there already.
 * HAProxy gives each request to the next API process in turn, and no client to the one that it had before. The rest of
 * its backend is that of compose.yaml, which has it ask another process for what a killed one left without an answer: the kernel
 * closes the sockets of a killed process one after another, so a client that tries again at once may be given to it once more.
 */
export class Balanced implements AsyncDisposable {
  readonly cluster: Cluster
  readonly #port: number
  readonly #folder: string
  readonly #key: CryptoKey
  readonly #apis = new Map<Api, { readonly port: number; program: Program }>()

  #balancer: ChildProcess | undefined
  #processor: Program | undefined

  private constructor(cluster: Cluster, port: number, folder: string, key: CryptoKey) {
    this.cluster = cluster
    this.#port = port
    this.#folder = folder
    this.#key = key
  }

  /** Resolves when each API process has answered through the balancer. */
  static async open(brokers: string): Promise<Balanced> {
    const folder = await temporaryFolder()
    const { publicKey, privateKey } = await generateKeyPair('EdDSA', { extractable: true })
    const keys = join(folder, 'jwks.json')
    await writeFile(keys, JSON.stringify({ keys: [{ ...(await exportJWK(publicKey)), kid: 'one', alg: 'EdDSA' }] }))
    const env = { AUTH: 'jwt', AUTH_JWKS: keys, HTTP_DRAIN_SECONDS: String(NOTICE_SECONDS) }
    const [balancer, ...ports] = (await freePorts(1 + NAMES.length)) as [number, ...number[]]
    const balanced = new Balanced(await Cluster.open(brokers, PARTITIONS, env), balancer, folder, privateKey)
    try {
      await balanced.#start(ports)
    } catch (error) {
      await balanced[Symbol.asyncDispose]()
      throw error
    }
    return balanced
  }

  get apis(): readonly Api[] {
    return NAMES
  }

  url(path: string): string {
    return `http://127.0.0.1:${this.#port}${path}`
  }

  /** A token that only its signature vouches for: the API processes have the public key, and no list of tokens. */
  token(claims: Readonly<Record<string, unknown>> = {}, expiresIn = '1h'): Promise<string> {
    return new SignJWT({ scope: 'devices:read devices:write', ...claims })
      .setProtectedHeader({ alg: 'EdDSA', kid: 'one' })
      .setIssuer('tidemark')
      .setAudience('tidemark')
      .setSubject('dashboard')
      .setIssuedAt()
      .setExpirationTime(expiresIn)
      .sign(this.#key)
  }

  /** Rejects when the balancer gives no answer. */
  async ask(path: string, { method = 'GET', body, headers = {}, token }: Request = {}): Promise<Reply> {
    const response = await fetch(this.url(path), {
      method,
      headers: {
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
        ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
        ...headers,
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    })
    return { status: response.status, text: await response.text(), by: servedBy(response), headers: response.headers }
  }

  kill(name: Api): Promise<Exit> {
    return this.#api(name).program.kill()
  }

  stop(name: Api): Promise<Exit> {
    return this.#api(name).program.stop()
  }

  /** Resolves when the balancer asks all of them again. */
  async restart(name: Api): Promise<void> {
    const api = this.#api(name)
    api.program = await this.cluster.api(api.port)
    await this.#untilAnswering()
  }

  /** Nothing is applied, nor read, until it is thawed. */
  freezeProcessor(): void {
    this.#processor?.child.kill('SIGSTOP')
  }

  thawProcessor(): void {
    this.#processor?.child.kill('SIGCONT')
  }

  /** Whether it still takes connections. */
  listens(name: Api): Promise<boolean> {
    const socket = connect(this.#api(name).port, '127.0.0.1')
    return new Promise<boolean>((resolve) => {
      socket.on('connect', () => resolve(true)).on('error', () => resolve(false))
    }).finally(() => socket.destroy())
  }

  /** Requests that each has now. */
  async underWay(): Promise<readonly number[]> {
    const count = await this.#statistics()
    return NAMES.map((name) => count(name, 'scur'))
  }

  /** Requests that the balancer gave once more so far, since a process took no connection or left it without an answer. */
  async repeated(): Promise<number> {
    const count = await this.#statistics()
    return count('BACKEND', 'wretr') + count('BACKEND', 'wredis')
  }

  /** Of the backend and its servers: see section 9.1 of HAProxy's management guide. */
  async #statistics(): Promise<(of: Api | 'BACKEND', what: string) => number> {
    const socket = connect(this.#statisticsPath)
    socket.write('show stat api -1 -1\n')
    const [head = '', ...rows] = (await text(socket)).trim().split('\n')
    const names = head.replace('# ', '').split(',')
    const tables = rows.map((row) => {
      const values = row.split(',')
      return new Map(names.map((name, i) => [name, values[i]]))
    })
    return (of, what) => {
      const value = tables.find((table) => table.get('svname') === of)?.get(what)
      // Without a number nothing would ever differ from what it was.
      if (value === undefined || !/^\d+$/.test(value))
        throw new Error(`HAProxy does not tell ${what} of ${of}: ${value}`)
      return Number(value)
    }
  }

  get #statisticsPath(): string {
    return join(this.#folder, 'haproxy.sock')
  }

  #api(name: Api): { readonly port: number; program: Program } {
    const api = this.#apis.get(name)
    if (api === undefined) throw new Error(`${name} was not started`)
    return api
  }

  async #start(ports: readonly number[]): Promise<void> {
    const { cluster } = this
    const apis = NAMES.map(async (name, i) => {
      const port = ports[i] as number
      this.#apis.set(name, { port, program: await cluster.api(port) })
    })
    const processor = cluster.processor('one')
    await Promise.all([processor, cluster.ingest(), ...apis])
    this.#processor = await processor
    const file = join(this.#folder, 'haproxy.cfg')
    await writeFile(file, configuration(this.#port, ports, this.#statisticsPath, await Composition.read()))
    this.#balancer = spawn('haproxy', ['-db', '-f', file], { stdio: 'ignore' })
    endsWithUs(this.#balancer)
    await this.#untilAnswering()
  }

  async #untilAnswering(): Promise<void> {
    const missing = new Set<string>(NAMES)
    const deadline = performance.now() + DEADLINE_MS
    while (missing.size > 0) {
      const reply = await this.ask('/readyz').catch((error: unknown) => error)
      if (performance.now() > deadline) throw new Error(`${[...missing].join()} do not answer: ${String(reply)}`)
      const { by, status } = reply as Partial<Reply>
      if (by !== undefined && status === 200) missing.delete(by)
      else await new Promise((resolve) => setTimeout(resolve, POLL_MS))
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#balancer?.kill('SIGKILL')
    await this.cluster[Symbol.asyncDispose]()
    await removeFolder(this.#folder)
  }
}

export function servedBy({ headers }: Response): Api | undefined {
  return (headers.get('x-served-by') ?? undefined) as Api | undefined
}

function configuration(port: number, apis: readonly number[], statistics: string, compose: Composition): string {
  const [backend] = /^backend api\n(?: .+\n)+/m.exec(compose.file('haproxy')) ?? []
  if (backend === undefined) throw new Error('the balancer of compose.yaml has no backend api')
  return `
global
  maxconn 500
  stats socket ${statistics}
defaults
  mode http
  timeout connect 2s
  timeout client 60s
  timeout check 5s
frontend http
  bind 127.0.0.1:${port}
  default_backend api
${backend.replace('balance leastconn', 'balance roundrobin').replace(/^ +server .+\n/gm, '')}\
  http-response set-header x-served-by %s
  default-server check inter ${CHECK_MS}ms fall 1 rise 1
${NAMES.map((name, i) => `  server ${name} 127.0.0.1:${apis[i]}`).join('\n')}
`
}
