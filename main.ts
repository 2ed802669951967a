import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { pino } from 'pino'
import { collectDefaultMetrics, Registry } from 'prom-client'
import { RoutedReader } from './api/reader.ts'
import { ApiServer } from './api/server.ts'
import { Ingest } from './ingest/ingest.ts'
import { type Configuration, readEnvironment } from './processor/contract/environment.ts'
import { ConfigurationError } from './processor/contract/errors.ts'
import { EmbeddedLog } from './processor/log/embedded.ts'
import { Processor } from './processor/processor.ts'
import { Fleet } from './simulators/fleet.ts'
import { runSimulate } from './simulators/simulate.ts'

const USAGE = `usage: tidemark [up | simulate] [flags]
  up [--processors N] [--demo]   all roles in this process, on the embedded log; --demo adds a simulated fleet
  simulate [flags]               a simulated fleet against a running broker; --help lists its flags`

/** How long a stop may take, in ms, before the process ends anyway; what was acknowledged is in the log by then. */
const STOP_DEADLINE_MS = 15_000
const DEMO_DEVICES = 20

async function main(argv: readonly string[]): Promise<number> {
  const [role = 'up', ...flags] = argv
  if (role === 'simulate')
    return await runSimulate(flags, {
      stdout: process.stdout,
      stderr: process.stderr,
      now: Date.now,
      signal: stopSignal(),
    })
  if (role === 'up') return await up(flags)
  if (role === '--help' || role === 'help') {
    process.stdout.write(`${USAGE}\n`)
    return 0
  }
  throw new ConfigurationError('INVALID_CONFIGURATION', `unknown role ${JSON.stringify(role)}\n${USAGE}`)
}

/** Aborts at the first SIGINT or SIGTERM; a second one ends the process at once. */
function stopSignal(): AbortSignal {
  const stop = new AbortController()
  for (const name of ['SIGINT', 'SIGTERM'] as const) {
    process.on(name, () => {
      if (stop.signal.aborted) process.exit(1)
      stop.abort(name)
    })
  }
  return stop.signal
}

async function up(flags: readonly string[]): Promise<number> {
  const { processors, demo } = parseUp(flags)
  const configuration = readEnvironment(process.env)
  if (configuration.KAFKA_BROKERS !== undefined) {
    throw new ConfigurationError(
      'INVALID_CONFIGURATION',
      'KAFKA_BROKERS is set, but this version has only the embedded log: unset it',
    )
  }
  const logger = pino({ level: configuration.LOG_LEVEL }, pino.destination({ fd: 2, sync: false }))
  const registry = new Registry()
  collectDefaultMetrics({ register: registry })
  const stop = stopSignal()
  const broken = new AbortController()
  let failure: unknown

  await using running = new AsyncDisposableStack()
  const log = running.use(
    await EmbeddedLog.open({
      folder: join(configuration.DATA_DIR, 'log'),
      partitions: configuration.PARTITIONS,
      standbys: configuration.STANDBYS,
      logger,
      registry,
      now: Date.now,
    }),
  )
  const locals = new Map<string, Processor>()
  for (let i = 1; i <= processors; i++) {
    const instance = i === 1 ? configuration.INSTANCE_ID : `${configuration.INSTANCE_ID}-${i}`
    const endpoint = `local:${instance}`
    const folder = join(configuration.DATA_DIR, instance)
    const processor = await Processor.open({ log, instance, endpoint, folder, logger, registry, now: Date.now })
    running.use(processor)
    locals.set(endpoint, processor)
  }
  // Roles end before what they stand on: the processors leave the group before their stores close.
  const leave = new AbortController()
  const memberships = [...locals.values()].map(async (processor) => {
    try {
      await processor.run(leave.signal)
    } catch (error) {
      failure = error
      broken.abort()
    }
  })
  running.defer(async () => {
    leave.abort()
    await Promise.all(memberships)
  })

  const reader = new RoutedReader({
    partitions: log.identity.partitions,
    owners: () => log.owners(),
    connect: (owner) => locals.get(owner.endpoint)?.reader,
    logger,
    now: Date.now,
  })
  // The API outlives the broker by the time a last look takes, and the broker's last records are processed before all ends.
  const api = running.use(
    await ApiServer.open({
      reader,
      checks: () => unreadiness(log, reader),
      host: configuration.HOST,
      port: configuration.HTTP_PORT,
      registry,
      logger,
    }),
  )
  const ingest = running.use(
    await Ingest.open({
      log,
      host: configuration.HOST,
      port: configuration.MQTT_PORT,
      registry,
      logger,
      now: Date.now,
      random: Math.random,
    }),
  )
  if (demo)
    running.use(await Fleet.open({ host: configuration.HOST, port: ingest.port, devices: DEMO_DEVICES }, Date.now))
  process.stdout.write(banner(configuration, ingest.port, api.port, processors, demo))

  await aborted(AbortSignal.any([stop, broken.signal]))
  logger.info({ reason: failure === undefined ? stop.reason : 'failure' }, 'stopping')
  setTimeout(() => {
    logger.error({ seconds: STOP_DEADLINE_MS / 1000 }, 'the stop took too long; what was acknowledged is in the log')
    process.exit(1)
  }, STOP_DEADLINE_MS).unref()
  await running.disposeAsync()
  if (failure !== undefined) throw failure
  return 0
}

function parseUp(flags: readonly string[]): { processors: number; demo: boolean } {
  try {
    const { values } = parseArgs({
      args: [...flags],
      options: { demo: { type: 'boolean', default: false }, processors: { type: 'string', default: '1' } },
    })
    const processors = Number(values.processors)
    if (!Number.isInteger(processors) || processors < 1 || processors > 16) {
      throw new TypeError(`--processors ${values.processors}: must be an integer from 1 to 16`)
    }
    return { processors, demo: values.demo }
  } catch (error) {
    throw new ConfigurationError('INVALID_CONFIGURATION', `${(error as Error).message}\n${USAGE}`, error)
  }
}

async function unreadiness(log: EmbeddedLog, reader: RoutedReader): Promise<string[]> {
  const problems: string[] = []
  if (log.fault !== undefined) problems.push(`the log takes no writes: ${log.fault.message}`)
  const missing = (await reader.partitions()).filter(({ owner }) => owner?.state !== 'running')
  if (missing.length > 0)
    problems.push(`partitions not yet served by an owner: ${missing.map((info) => info.partition).join(', ')}`)
  return problems
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve()
    else signal.addEventListener('abort', () => resolve(), { once: true })
  })
}

function banner(
  configuration: Configuration,
  mqttPort: number,
  httpPort: number,
  processors: number,
  demo: boolean,
): string {
  const { HOST, DATA_DIR, PARTITIONS } = configuration
  const http = `http://${HOST}:${httpPort}`
  const device = demo ? 'thermostat-00001' : 'truck-17'
  return `Tidemark is ready: all roles in one process
  MQTT   ${HOST}:${mqttPort} (TCP, and WebSocket on the same port)
  HTTP   ${http}
  log    embedded, ${PARTITIONS} partitions, ${processors} processor${processors > 1 ? 's' : ''}, in ${DATA_DIR}
${demo ? `  fleet  ${DEMO_DEVICES} simulated devices, one message a second each\n` : ''}
Try:
  mosquitto_pub -h ${HOST} -p ${mqttPort} -q 1 -t devices/truck-17/telemetry -m '{"temperature":21.5,"pos":{"lat":52.1,"lon":4.3}}'
  curl ${http}/v1/devices/${device}
  curl ${http}/v1/partitions

Ctrl-C stops it; what was acknowledged stays in ${DATA_DIR}.
`
}

try {
  process.exitCode = await main(process.argv.slice(2))
} catch (error) {
  if (error instanceof ConfigurationError) {
    process.stderr.write(`tidemark: ${error.message}\n`)
    process.exitCode = 2
  } else {
    process.stderr.write(`tidemark: ${error instanceof Error ? error.stack : String(error)}\n`)
    process.exitCode = 1
  }
}
