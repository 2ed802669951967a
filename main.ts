import { flushCompileCache } from 'node:module'
import { resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { collectDefaultMetrics, Registry } from 'prom-client'
import { type Access, readAccess } from './api/auth/tokens.ts'
import { DEFAULT_LIMITS as API_LIMITS } from './api/limits.ts'
import { type MqttAccess, readMqttAccess } from './ingest/identity/access.ts'
import { DEFAULT_LIMITS as INGEST_LIMITS, limitsFrom } from './ingest/limits.ts'
import project from './package.json' with { type: 'json' }
import { ConfigurationError, reasonOf } from './processor/contract/errors.ts'
import type { Beginning, ProcessorsOptions } from './processor/open.ts'
import type { Processor } from './processor/processor.ts'
import { type Audit, openAudit } from './processor/runtime/audit.ts'
import { banner } from './processor/runtime/banner.ts'
import { type Configuration, misspelt, readEnvironment, withSecretFiles } from './processor/runtime/environment.ts'
import { lastWords, openLogger } from './processor/runtime/logger.ts'
import { aborted, pause } from './processor/runtime/pause.ts'
import { type Connections, connectionsWithin, keepRequestsYoung } from './processor/runtime/resources.ts'
import { end, endAtOnce, stopSignal, stopWithStdout } from './processor/runtime/stop.ts'

const USAGE = `usage: tidemark [up | ingest | processor | api | simulate | drill | token | credential] [flags]
  up [--processors N] [--demo]   all roles in this process: on Kafka when KAFKA_BROKERS is set, else on the embedded log;
                                 --demo adds a simulated fleet
  ingest, processor, api         one role of a cluster; needs KAFKA_BROKERS
  simulate [flags]               a simulated fleet against a running broker; --help lists its flags
  drill NAME [flags]             disturbs a cluster under load, and checks what must hold; --help lists drills and flags
  token [flags]                  a token for the API or for MQTT, where one is asked for; --help lists its flags
  credential ACTION [flags]      adds, lists and removes passwords of MQTT clients; --help lists its flags`

/**
 * A stop may take this many milliseconds before the process ends anyway; acknowledged messages are in the log by then.
 */
const STOP_DEADLINE_MS = 15_000
const DEMO_DEVICES = 20
/** Default of HTTP_DRAIN_SECONDS for an api process; a process with all roles has no other to hand over to. */
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
  if (role === 'credential') {
    const { runCredential } = await import('./ingest/identity/credential-command.ts')
    const { MQTT_PASSWORDS: file } = readEnvironment(environment)
    stdout.write(`${await runCredential(flags, { stdin: process.stdin, file })}\n`)
    return 0
  }
  if (role === '--help' || role === 'help') {
    stdout.write(`${USAGE}\n`)
    return 0
  }
  throw new ConfigurationError('INVALID_CONFIGURATION', `unknown role ${JSON.stringify(role)}\n${USAGE}`)
}

type Role = 'up' | 'ingest' | 'processor' | 'api'

interface Process extends Omit<ProcessorsOptions, 'beginnings'> {
  readonly role: Role
  readonly flags: { readonly processors: number; readonly demo: boolean }
  readonly connections: Connections
  readonly audit: Audit
}

async function serve(role: Role, rest: readonly string[]): Promise<number> {
  keepRequestsYoung()
  const flags = parseFlags(role, rest)
  const configuration = readEnvironment(await withSecretFiles(process.env))
  if (role !== 'up' && configuration.KAFKA_BROKERS === undefined) {
    const way = 'set KAFKA_BROKERS, or run all roles in one process with "up"'
    throw new ConfigurationError('INVALID_CONFIGURATION', `${role} is a role of a cluster on Kafka: ${way}`)
  }
  // This throws when the working folder is gone, before anything is opened; mkdir would loop for ever in Node's code.
  if (role === 'up' || role === 'processor') resolve(configuration.DATA_DIR)
  const access = role === 'up' || role === 'api' ? readAccess(configuration) : undefined
  const mqttAccess = role === 'up' || role === 'ingest' ? readMqttAccess(configuration) : undefined
  if (flags.demo && mqttAccess !== undefined && mqttAccess.ways.size > 0) {
    const message = 'the simulated fleet of --demo has no credentials: unset MQTT_AUTH'
    throw new ConfigurationError('INVALID_CONFIGURATION', message)
  }
  const logger = openLogger(configuration.LOG_LEVEL)
  for (const [variable, meant] of misspelt(process.env)) {
    logger.warn({ variable }, `${variable} is set, and nothing reads it: ${meant} may be meant`)
  }
  // A server goes on when nobody reads its banner.
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
  // Until the log is open a stop has nothing to wait for.
  stop.addEventListener('abort', endAtOnce)
  const { openLog } = await import('./processor/log/open.ts')
  // Kafka answers while the code of the role is loaded.
  const opening = openLog(configuration, logger, registry)
  opening.catch(() => {})
  const beginnings = await begin(role, flags.processors, configuration, running)
  const log = running.use(await opening)
  // Node writes its compile cache when a process ends by itself, but not when it is killed. The first write takes 0.2
  // s.
  flushCompileCache()
  stop.removeEventListener('abort', endAtOnce)
  const stopping = async () => (stop.aborted || broken.signal.aborted ? ['the process is shutting down'] : [])
  const checks: Process['checks'] = [stopping]
  // An api process stays ready: it answers reads, and refuses writes by itself.
  if (role !== 'api') {
    checks.push(async () => (log.fault === undefined ? [] : [`the log takes no writes: ${log.fault.message}`]))
  }
  let mqtt: Awaited<ReturnType<typeof openIngest>> | undefined
  // The health server answers before MQTT listens.
  if (mqttAccess !== undefined) {
    checks.push(async () => mqtt?.check() ?? ['MQTT connections are not taken yet'])
  }
  const problems = async () => (await Promise.all(checks.map((check) => check()))).flat()
  const wanted = {
    api: access === undefined ? 0 : API_LIMITS.maxConnections,
    mqtt: mqttAccess !== undefined ? INGEST_LIMITS.maxConnections : 0,
  }
  const connections = await connectionsWithin(wanted, logger)
  const audit = await openAudit(configuration.AUDIT_LOG, logger, running)
  const opened = { log, audit, logger, registry, running, connections }
  const here = { ...opened, role, flags, configuration, checks, problems, fail }
  const processors = beginnings === undefined ? undefined : await openProcessors(here, beginnings)
  // A stop goes in reverse: the broker, then the API, then the processors, which process the broker's last records.
  const http = access === undefined ? undefined : await openApi(here, access, processors)
  if (mqttAccess !== undefined) mqtt = await openIngest(here, mqttAccess)
  const query = configuration.KAFKA_BROKERS === undefined ? [] : [...(processors?.keys() ?? [])]
  const { partitions } = log.identity
  const { processors: count, demo } = flags
  const devices = demo ? DEMO_DEVICES : 0
  process.stdout.write(banner({ role, configuration, partitions, processors: count, devices, query, http, ...mqtt }))

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
 * Loads the code of this role alone, since loading all takes longer than joining the group, and begins to open stores.
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

/** A stopping process answers for this many milliseconds while it is not ready, so that balancers look elsewhere. */
function noticeMs({ role, configuration: { HTTP_DRAIN_SECONDS: given } }: Process): number {
  return (given ?? (role === 'api' ? API_DRAIN_SECONDS : 0)) * 1000
}

interface ServedMqtt {
  readonly mqtt: number
  readonly mqttTls: number | undefined
  readonly health: string | undefined
  readonly check: () => readonly string[]
}

async function openIngest(here: Process, access: MqttAccess): Promise<ServedMqtt> {
  const { role, flags, configuration, log, logger, registry, running, audit, problems: checks, connections } = here
  const { HOST: host, HEALTH_PORT } = configuration
  let health: string | undefined
  // The API of a process with all roles answers for its health.
  if (role === 'ingest') {
    const { Endpoint } = await import('./processor/runtime/health-server.ts')
    const options = { host, port: HEALTH_PORT, variable: 'HEALTH_PORT', checks, registry, logger } as const
    health = running.use(await Endpoint.open(options)).address
  }
  const { Ingest } = await import('./ingest/ingest.ts')
  const { now, random } = { now: Date.now, random: Math.random }
  const limits = { maxConnections: connections.mqtt, ...limitsFrom(configuration) }
  const ingest = running.use(await Ingest.open({ log, access, limits, registry, logger, audit, now, random }))
  const { port, tlsPort } = ingest
  if (flags.demo) {
    const { Fleet } = await import('./simulators/fleet/fleet.ts')
    running.use(await Fleet.open({ host, port, devices: DEMO_DEVICES }, Date.now))
  }
  return { mqtt: port, mqttTls: tlsPort, health, check: () => ingest.check() }
}

/** process.cwd() fails in this call when the working folder was removed. */
function lacksFolder(error: unknown): boolean {
  return (error as NodeJS.ErrnoException | undefined)?.syscall === 'uv_cwd'
}

const NO_FOLDER = 'the working folder is not there any more: start this in another one'

try {
  const code = await main(process.argv.slice(2))
  // stopWithStdout() may have set it.
  process.exitCode ??= code
  await lastWords()
} catch (error) {
  const configuration = error instanceof ConfigurationError || lacksFolder(error)
  const message = lacksFolder(error) ? NO_FOLDER : reasonOf(error)
  const text = configuration ? message : error instanceof Error ? error.stack : message
  await lastWords(`tidemark: ${text}\n`)
  // Not awaited: a log that is still being opened would keep the process alive.
  process.exit(configuration ? 2 : 1)
}
