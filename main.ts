import { flushCompileCache } from 'node:module'
import { resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { collectDefaultMetrics, Registry } from 'prom-client'
import { type Access, readAccess } from './api/auth/tokens.ts'
import { DEFAULT_LIMITS as API_LIMITS } from './api/limits.ts'
import { DEFAULT_LIMITS as INGEST_LIMITS } from './ingest/limits.ts'
import project from './package.json' with { type: 'json' }
import { addressOf, hostAndPort } from './processor/contract/address.ts'
import { ConfigurationError, reasonOf } from './processor/contract/errors.ts'
import type { Beginning, ProcessorsOptions } from './processor/open.ts'
import type { Processor } from './processor/processor.ts'
import { type Configuration, misspelt, readEnvironment } from './processor/runtime/environment.ts'
import { lastWords, openLogger } from './processor/runtime/logger.ts'
import { keepRequestsYoung } from './processor/runtime/memory.ts'
import { type Connections, connectionsWithin } from './processor/runtime/open-files.ts'
import { aborted, pause } from './processor/runtime/pause.ts'
import { withSecretFiles } from './processor/runtime/secret-files.ts'
import { onStopSignals } from './processor/runtime/signals.ts'

const USAGE = `usage: tidemark [up | ingest | processor | api | simulate | drill | token] [flags]
  up [--processors N] [--demo]   all roles in this process: on Kafka when KAFKA_BROKERS is set, else on the embedded log;
                                 --demo adds a simulated fleet
  ingest, processor, api         one role of a cluster; needs KAFKA_BROKERS
  simulate [flags]               a simulated fleet against a running broker; --help lists its flags
  drill NAME [flags]             disturbs a cluster under load, and checks what must hold; --help lists drills and flags
  token [flags]                  a token for the API, where AUTH=jwt asks for one; --help lists its flags`

/** How long a stop may take, in ms, before the process ends anyway; what was acknowledged is in the log by then. */
const STOP_DEADLINE_MS = 15_000
const DEMO_DEVICES = 20
/** Unless HTTP_DRAIN_SECONDS says. A process with all roles has no other beside it. */
const API_DRAIN_SECONDS = 3

async function main(argv: readonly string[]): Promise<number> {
  const [role = 'up', ...flags] = argv
  if (role === 'up' || role === 'ingest' || role === 'processor' || role === 'api') return await serve(role, flags)
  const { stdout, stderr, env: environment } = process
  const unread = stopWithStdout()
  if (role === 'simulate') {
    const { runSimulate } = await import('./simulators/fleet/simulate.ts')
    return await runSimulate(flags, { stdout, stderr, now: Date.now, signal: AbortSignal.any([stopSignal(), unread]) })
  }
  if (role === 'drill') {
    const { runDrillCommand } = await import('./simulators/drill/drill.ts')
    const signal = AbortSignal.any([stopSignal(), unread])
    return await runDrillCommand(flags, { stdout, stderr, environment, signal })
  }
  if (role === 'token') {
    const { runToken } = await import('./api/auth/token-command.ts')
    stdout.write(`${await runToken(flags, readEnvironment(await withSecretFiles(environment)), Date.now())}\n`)
    return 0
  }
  if (role === '--help' || role === 'help') {
    stdout.write(`${USAGE}\n`)
    return 0
  }
  throw new ConfigurationError('INVALID_CONFIGURATION', `unknown role ${JSON.stringify(role)}\n${USAGE}`)
}

/** Of a command that is there for what it prints. Aborts when stdout takes no more, with which the exit code is 1. */
function stopWithStdout(): AbortSignal {
  const unread = new AbortController()
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (unread.signal.aborted) return
    unread.abort()
    process.exitCode = 1
    // Who has stopped reading, as head does, need not be told.
    if (error.code !== 'EPIPE') void lastWords(`tidemark: stdout cannot be written: ${error.message}\n`)
  })
  return unread.signal
}

/** Aborts at the first SIGINT, SIGTERM or SIGHUP (a terminal that is closed); a second one ends the process at once. */
function stopSignal(): AbortSignal {
  const stop = new AbortController()
  onStopSignals({ first: (name) => stop.abort(name), again: () => end(1) })
  return stop.signal
}

type Role = 'up' | 'ingest' | 'processor' | 'api'

/** What the roles of this process share. */
interface Process extends Omit<ProcessorsOptions, 'beginnings'> {
  readonly role: Role
  readonly flags: { readonly processors: number; readonly demo: boolean }
  /** The most that are open at once. */
  readonly connections: Connections
}

async function serve(role: Role, rest: readonly string[]): Promise<number> {
  keepRequestsYoung()
  const flags = parseFlags(role, rest)
  const configuration = readEnvironment(await withSecretFiles(process.env))
  if (role !== 'up' && configuration.KAFKA_BROKERS === undefined) {
    const way = 'set KAFKA_BROKERS, or run all roles in one process with "up"'
    throw new ConfigurationError('INVALID_CONFIGURATION', `${role} is a role of a cluster on Kafka: ${way}`)
  }
  // What is wrong with it is to be known before anything is opened. Where the working folder is gone, this throws; mkdir
  // would go round and round in Node's own code.
  if (role === 'up' || role === 'processor') resolve(configuration.DATA_DIR)
  const access = role === 'up' || role === 'api' ? readAccess(configuration) : undefined
  const logger = openLogger(configuration.LOG_LEVEL)
  for (const [variable, meant] of misspelt(process.env)) {
    logger.warn({ variable }, `${variable} is set, and nothing reads it: ${meant} may be meant`)
  }
  // What serves needs nobody that reads its banner.
  process.stdout.on('error', (error) => logger.warn({ err: error }, 'stdout takes nothing'))
  const registry = new Registry()
  collectDefaultMetrics({ register: registry })
  const stop = stopSignal()
  const broken = new AbortController()
  let failure: unknown
  const fail = (error: unknown): void => {
    failure ??= error
    broken.abort()
  }

  await using running = new AsyncDisposableStack()
  // Nothing is held while the log is waited for: a stop need not be put off.
  stop.addEventListener('abort', quit)
  const { openLog } = await import('./processor/log/open.ts')
  // Kafka answers, and stores are opened, while the code of the role is loaded.
  const opening = openLog(configuration, logger, registry)
  opening.catch(() => {})
  const beginnings = await begin(role, flags.processors, configuration, running)
  const log = running.use(await opening)
  // Node keeps what it compiled when a process ends by itself, which none may do. Now, as the first time takes 0.2 s.
  flushCompileCache()
  stop.removeEventListener('abort', quit)
  const stopping = async () => (stop.aborted || broken.signal.aborted ? ['the process is shutting down'] : [])
  const checks: Process['checks'] = [stopping]
  // An api process answers reads meanwhile, and refuses the writes by itself.
  if (role !== 'api') {
    checks.push(async () => (log.fault === undefined ? [] : [`the log takes no writes: ${log.fault.message}`]))
  }
  let mqtt: Awaited<ReturnType<typeof openIngest>> | undefined
  const hasDevices = role === 'up' || role === 'ingest'
  // What answers for the health of the process is there before it.
  if (hasDevices) checks.push(async () => (mqtt === undefined ? ['MQTT connections are not taken yet'] : []))
  const problems = async () => (await Promise.all(checks.map((check) => check()))).flat()
  const wanted = {
    api: access === undefined ? 0 : API_LIMITS.maxConnections,
    mqtt: hasDevices ? INGEST_LIMITS.maxConnections : 0,
  }
  const connections = await connectionsWithin(wanted, logger)
  const here = { role, flags, configuration, log, logger, registry, running, checks, problems, connections, fail }
  const processors = beginnings === undefined ? undefined : await openProcessors(here, beginnings)
  // The API outlives the broker by the time a last look takes, and the broker's last records are processed before all ends.
  const http = access === undefined ? undefined : await openApi(here, access, processors)
  if (hasDevices) mqtt = await openIngest(here)
  const query = configuration.KAFKA_BROKERS === undefined ? [] : [...(processors?.keys() ?? [])]
  process.stdout.write(banner(here, { query, http, mqtt: mqtt?.port, health: mqtt?.health }))

  await aborted(AbortSignal.any([stop, broken.signal]))
  logger.info({ reason: failure === undefined ? stop.reason : 'failure' }, 'stopping')
  setTimeout(() => {
    logger.error('the stop took too long; what was acknowledged is in the log')
    end(1)
  }, STOP_DEADLINE_MS + noticeMs(here)).unref()
  await running.disposeAsync()
  if (failure !== undefined) throw failure
  return 0
}

function quit(): void {
  end(0)
}

function end(code: number): void {
  void lastWords().then(() => process.exit(code))
}

function parseFlags(role: Role, flags: readonly string[]): Process['flags'] {
  try {
    const { values } = parseArgs({
      args: [...flags],
      options:
        role === 'up'
          ? { demo: { type: 'boolean', default: false }, processors: { type: 'string', default: '1' } }
          : {},
    })
    const { processors: text = '1', demo = false } = values as { processors?: string; demo?: boolean }
    const processors = Number(text)
    if (!Number.isInteger(processors) || processors < 1 || processors > 16) {
      throw new TypeError(`--processors ${text}: must be an integer from 1 to 16`)
    }
    return { processors, demo }
  } catch (error) {
    throw new ConfigurationError('INVALID_CONFIGURATION', `${(error as Error).message}\n${USAGE}`, error)
  }
}

/**
 * Loads the code of the role, and no other's: that of all takes a process longer than to join the group. What its
 * processors can begin with then has begun.
 */
async function begin(role: Role, count: number, configuration: Configuration, running: AsyncDisposableStack) {
  const { beginProcessors } = role === 'up' || role === 'processor' ? await import('./processor/open.ts') : {}
  const beginnings = await beginProcessors?.(configuration, count, running)
  if (role === 'up' || role === 'api') await import('./api/open.ts')
  if (role === 'up' || role === 'ingest') await import('./ingest/ingest.ts')
  return beginnings
}

async function openProcessors(here: Process, beginnings: readonly Beginning[]) {
  const { openProcessors: open } = await import('./processor/open.ts')
  return await open({ ...here, beginnings })
}

async function openApi(here: Process, access: Access, processors: ReadonlyMap<string, Processor> = new Map()) {
  const { configuration, log } = here
  const [{ openApi: open }, { changeFeed }, { letterReader }, { writeRecord }] = await Promise.all([
    import('./api/open.ts'),
    import('./processor/query/log-readers.ts'),
    import('./processor/query/log-readers.ts'),
    import('./processor/contract/write.ts'),
  ])
  return await open({
    ...here,
    access,
    maxConnections: here.connections.api,
    version: project.version,
    partitions: log.identity.partitions,
    owners: () => log.owners(),
    local: (endpoint) => processors.get(endpoint)?.reader,
    alone: configuration.KAFKA_BROKERS === undefined,
    writer: { write: (deviceId, write) => log.write(writeRecord(deviceId, write, Date.now())) },
    letters: letterReader(log),
    feed: changeFeed(log),
    notice: () => pause(noticeMs(here)),
  })
}

/** How long a stop goes on answering while it is not ready, ms, so that balancers see it and look elsewhere. */
function noticeMs({ role, configuration: { HTTP_DRAIN_SECONDS: given } }: Process): number {
  return (given ?? (role === 'api' ? API_DRAIN_SECONDS : 0)) * 1000
}

async function openIngest(here: Process): Promise<{ port: number; health: string | undefined }> {
  const { role, flags, configuration, log, logger, registry, running, problems: checks, connections } = here
  const { HOST: host, MQTT_PORT, HEALTH_PORT } = configuration
  let health: string | undefined
  // Where there is an API, it answers this too.
  if (role === 'ingest') {
    const { Endpoint } = await import('./processor/runtime/health-server.ts')
    const options = { host, port: HEALTH_PORT, variable: 'HEALTH_PORT', checks, registry, logger } as const
    health = running.use(await Endpoint.open(options)).address
  }
  const { Ingest } = await import('./ingest/ingest.ts')
  const { now, random } = { now: Date.now, random: Math.random }
  const limits = { maxConnections: connections.mqtt }
  const { port } = running.use(await Ingest.open({ log, host, port: MQTT_PORT, limits, registry, logger, now, random }))
  if (flags.demo) {
    const { Fleet } = await import('./simulators/fleet/fleet.ts')
    running.use(await Fleet.open({ host, port, devices: DEMO_DEVICES }, Date.now))
  }
  return { port, health }
}

interface Served {
  readonly query: readonly string[]
  readonly http: string | undefined
  readonly mqtt: number | undefined
  readonly health: string | undefined
}

function banner({ role, configuration, flags, log }: Process, { query, http, mqtt, health }: Served): string {
  const { HOST, DATA_DIR, KAFKA_BROKERS, GROUP, AUTH } = configuration
  const { processors, demo } = flags
  const partitions = `${log.identity.partitions} partitions`
  const inProcess = role === 'up' ? `, ${processors} processor${processors > 1 ? 's' : ''} here` : ''
  const lines = [`Tidemark is ready: ${role === 'up' ? 'all roles in one process' : role}`]
  if (mqtt !== undefined)
    lines.push(`  MQTT   ${addressOf({ host: HOST, port: mqtt })} (TCP, and WebSocket on the same port)`)
  if (http !== undefined) lines.push(`  HTTP   ${http}${AUTH === 'jwt' ? ', for bearers of a token' : ''}`)
  for (const endpoint of query) lines.push(`  query  ${addressOf(hostAndPort(endpoint))} (also /readyz and /metrics)`)
  if (health !== undefined) lines.push(`  health ${addressOf(hostAndPort(health))} (/readyz and /metrics)`)
  lines.push(
    KAFKA_BROKERS === undefined
      ? `  log    embedded, ${partitions}${inProcess}, in ${DATA_DIR}`
      : `  log    Kafka at ${KAFKA_BROKERS}, ${partitions}, group ${GROUP}${inProcess}`,
  )
  if (demo) lines.push(`  fleet  ${DEMO_DEVICES} simulated devices, one message a second each`)
  if (mqtt === undefined || http === undefined) return `${lines.join('\n')}\n`
  const curl = AUTH === 'jwt' ? 'curl -H "authorization: Bearer $TOKEN"' : 'curl'
  const message = '{"temperature":21.5,"pos":{"lat":52.1,"lon":4.3}}'
  return `${lines.join('\n')}

Try:
  mosquitto_pub -h ${HOST} -p ${mqtt} -q 1 -t devices/truck-17/telemetry -m '${message}'
  ${curl} ${http}/v1/devices/truck-17
  ${curl} ${demo ? `'${http}/v1/devices?limit=3'` : `${http}/v1/partitions`}

Ctrl-C stops it; what was acknowledged stays in ${KAFKA_BROKERS === undefined ? DATA_DIR : 'Kafka'}.
`
}

/** Of a process without a working folder, in which what is named without one is looked for. */
function lacksFolder(error: unknown): boolean {
  return (error as NodeJS.ErrnoException | undefined)?.syscall === 'uv_cwd'
}

const NO_FOLDER = 'the working folder is not there any more: start this in another one'

try {
  const code = await main(process.argv.slice(2))
  // It may be set by then.
  process.exitCode ??= code
  await lastWords()
} catch (error) {
  const configuration = error instanceof ConfigurationError || lacksFolder(error)
  const message = lacksFolder(error) ? NO_FOLDER : reasonOf(error)
  const text = configuration ? message : error instanceof Error ? error.stack : message
  await lastWords(`tidemark: ${text}\n`)
  // What was begun beside it is not waited for: a log that is being opened would keep the process alive, for ever once it is.
  process.exit(configuration ? 2 : 1)
}
