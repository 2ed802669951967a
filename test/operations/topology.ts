import { type ChildProcess, spawn } from 'node:child_process'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { endsWithUs, freePorts, Program, removeFolder, temporaryFolder } from '../../simulators/program.ts'
import { Composition } from './composition.ts'

const READY_MS = 120_000
const POLL_MS = 20
const MAX_OUTPUT_CHARACTERS = 64 * 1024

/** Ports that compose.yaml gives, by service and port: `ingest-1:1883`. */
type Addresses = ReadonlyMap<string, number>

/**
 * The cluster of compose.yaml without containers: each service is a process on 127.0.0.1 with the environment, arguments
 * and files that it has there, but for host names, ports, folders, and Kafka, which is there already.
 */
export class Topology implements AsyncDisposable {
  readonly #programs = new Map<string, Program>()
  readonly #children: ChildProcess[] = []
  readonly #addresses: Addresses
  readonly #folder: string
  /** By HAProxy and Prometheus. */
  #said = ''

  private constructor(addresses: Addresses, folder: string) {
    this.#addresses = addresses
    this.#folder = folder
  }

  /** Resolves when every process is ready. */
  static async open(brokers: string): Promise<Topology> {
    const compose = await Composition.read()
    const roles = ['ingest', 'processor', 'api'].flatMap((role) => compose.of(role))
    const listening = roles.flatMap(({ name, environment = {} }) =>
      Object.entries(environment).flatMap(([variable, port]) =>
        variable.endsWith('_PORT') ? [`${name}:${port}`] : [],
      ),
    )
    listening.push('balancer:1883', 'balancer:8080', 'balancer:8404', 'prometheus:9090')
    const ports = await freePorts(listening.length)
    const topology = new Topology(
      new Map(listening.map((name, i) => [name, ports[i] as number])),
      await temporaryFolder(),
    )
    try {
      await topology.#start(compose, brokers)
    } catch (error) {
      await topology[Symbol.asyncDispose]()
      throw error
    }
    return topology
  }

  /** The port at which `service:port` of compose.yaml is reached. */
  port(name: string): number {
    const port = this.#addresses.get(name)
    if (port === undefined) throw new Error(`compose.yaml has no ${name}`)
    return port
  }

  program(name: string): Program {
    const program = this.#programs.get(name)
    if (program === undefined) throw new Error(`compose.yaml has no role ${name}`)
    return program
  }

  get(name: string, path: string): Promise<Response> {
    return fetch(`http://127.0.0.1:${this.port(name)}${path}`)
  }

  /** One sample of the metrics of a process; undefined when it has none of that name. */
  async metric(name: string, sample: string): Promise<number | undefined> {
    const text = await (await this.get(name, '/metrics')).text()
    const line = text.split('\n').find((one) => one.startsWith(`${sample} `))
    return line === undefined ? undefined : Number(line.split(' ')[1])
  }

  async #start(compose: Composition, brokers: string): Promise<void> {
    const secret = join(this.#folder, 'cluster-secret')
    await writeFile(secret, 'held-by-all-roles-of-this-cluster')
    for (const { name, command, environment = {} } of ['ingest', 'processor', 'api'].flatMap((role) =>
      compose.of(role),
    )) {
      const env = { ...environment }
      for (const variable of Object.keys(env)) {
        if (variable.endsWith('_PORT')) env[variable] = String(this.port(`${name}:${env[variable]}`))
      }
      const here = {
        HOST: '127.0.0.1',
        KAFKA_BROKERS: brokers,
        CLUSTER_SECRET_FILE: secret,
        LOG_LEVEL: process.env.TEST_LOG_LEVEL ?? 'warn',
      }
      const folder = environment.DATA_DIR === undefined ? {} : { DATA_DIR: join(this.#folder, name) }
      this.#programs.set(name, Program.main(command?.slice(2) as string[], { ...env, ...here, ...folder }))
    }
    await this.#run('haproxy', ['-db', '-f'], 'haproxy.cfg', this.#local(compose.file('haproxy')))
    const alerts = join(this.#folder, 'alerts.yml')
    await writeFile(alerts, compose.file('alerts'))
    const scrape = this.#local(compose.file('prometheus')).replaceAll(': 5s', ': 1s')
    const prometheus = ['--storage.tsdb.path', join(this.#folder, 'prometheus'), '--web.listen-address']
    const listen = `127.0.0.1:${this.port('prometheus:9090')}`
    await this.#run(
      'prometheus',
      [...prometheus, listen, '--config.file'],
      'prometheus.yml',
      scrape.replace('/etc/prometheus/alerts.yml', alerts),
    )
    const health = [...this.#addresses.keys()].filter((name) => /:(8081|7000|8080)$/.test(name))
    await Promise.all([...health, 'balancer:8080'].map((name) => this.#ready(name)))
  }

  /** Host names of the engine's network become ports of this host. */
  #local(text: string): string {
    // Containers may open more files than this process may.
    let local = text
      .replace('maxconn 40000', 'maxconn 1000')
      .replace(' resolvers docker init-addr none', '')
      .replace(/resolvers docker\n(.+\n)+/, '')
    local = local.replace(/bind :(\d+)/g, (_, port: string) => `bind 127.0.0.1:${this.port(`balancer:${port}`)}`)
    local = local.replace(/port 8081/g, 'port HEALTH')
    for (const [name, port] of this.#addresses)
      local = local.replaceAll(new RegExp(`\\b${name}\\b`, 'g'), `127.0.0.1:${port}`)
    return local.replace(
      /(server (ingest-\d) .*)HEALTH/g,
      (_, line: string, name: string) => `${line}${this.port(`${name}:8081`)}`,
    )
  }

  async #run(program: string, args: readonly string[], file: string, content: string): Promise<void> {
    const at = join(this.#folder, file)
    await writeFile(at, content)
    const child = spawn(program, [...args, at], { stdio: ['ignore', 'ignore', 'pipe'] })
    endsWithUs(child)
    child.stderr.on('data', (chunk: Buffer) => {
      this.#said = (this.#said + chunk.toString()).slice(-MAX_OUTPUT_CHARACTERS)
    })
    this.#children.push(child)
  }

  async #ready(name: string): Promise<void> {
    const deadline = performance.now() + READY_MS
    for (;;) {
      const answer = await this.get(name, '/readyz').then(
        async (response) => `${response.status} ${await response.text()}`,
        (error: Error) => error.message,
      )
      if (answer.startsWith('200')) return
      const program = this.#programs.get(name.split(':')[0] as string)
      if (program?.exit !== undefined || performance.now() > deadline) {
        throw new Error(`${name} is not ready: ${answer} ${(program?.stderr ?? this.#said).slice(-2_000)}`)
      }
      await new Promise((resolve) => setTimeout(resolve, POLL_MS))
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const child of this.#children) child.kill('SIGKILL')
    await Promise.all(Array.from(this.#programs.values(), (program) => program.kill()))
    await removeFolder(this.#folder)
  }
}
