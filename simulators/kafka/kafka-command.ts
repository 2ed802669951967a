import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { ConfigurationError, reasonOf } from '../../processor/contract/errors.ts'
import { KAFKA_FOLDER } from '../../processor/runtime/environment.ts'
import { onStopSignals } from '../../processor/runtime/stop.ts'
import { refused } from '../flags.ts'
import { archiveClasses, Kafka } from './kafka.ts'

/** Longest time for a broker to stop and to write the archive, ms. */
const ARCHIVE_TIMEOUT_MS = 60_000

const USAGE = `usage: npm run kafka -- [flags]
  --port 9092          of the first broker; others take the ports after it. 0: any free ones
  --nodes 1            or 3
  --data FOLDER        keeps cluster and data over restarts; default: kafka in DATA_DIR, or in ./data
  --prepare            only fetches Kafka, and has later starts take half the time
Ctrl-C stops it, and a second one kills it. It ends with 1 when all of its nodes have ended.
`

async function main(): Promise<number> {
  const { values } = parse()
  if (values.help) {
    process.stdout.write(USAGE)
    return 0
  }
  if (values.prepare) {
    await prepare()
    return 0
  }
  if (values.nodes !== '1' && values.nodes !== '3') {
    throw new ConfigurationError('INVALID_CONFIGURATION', `--nodes ${values.nodes}: must be 1 or 3`)
  }
  if (!/^\d{1,5}$/.test(values.port) || Number(values.port) > 65_535) {
    throw new ConfigurationError('INVALID_CONFIGURATION', `--port ${values.port}: must be a port, 0 for any free one`)
  }
  const { promise: ended, resolve: end } = Promise.withResolvers<number>()
  let ready = false
  let stopping = false
  // The brokers are killed with this process, so it may exit while they start, and at a second signal.
  onStopSignals({
    first: () => {
      if (!ready) process.exit(0)
      stopping = true
      end(0)
    },
    again: () => process.exit(1),
  })
  const nodes = values.nodes === '3' ? 3 : 1
  let up: number = nodes
  const onFall = (log: string): void => {
    // Ctrl-C in a terminal reaches the brokers, too.
    if (stopping) return
    process.stderr.write(`kafka: Kafka ended; see ${log}\n`)
    up--
    if (up === 0) end(1)
  }
  await using kafka = await Kafka.open({ port: Number(values.port), nodes, data: values.data, onFall })
  ready = true
  process.stdout.write(`kafka ready on ${kafka.brokers}\n`)
  return await ended
}

async function prepare(): Promise<void> {
  await archiveClasses(async (jvm) => {
    await using kafka = await Kafka.open({ jvm })
    await kafka.stop(1, ARCHIVE_TIMEOUT_MS)
  })
}

function parse() {
  const options = {
    port: { type: 'string', default: '9092' },
    nodes: { type: 'string', default: '1' },
    data: { type: 'string', default: join(process.env.DATA_DIR ?? './data', KAFKA_FOLDER) },
    prepare: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  } as const
  try {
    return parseArgs({ options })
  } catch (error) {
    throw refused(error, '--help lists the flags')
  }
}

try {
  process.exitCode = await main()
} catch (error) {
  process.stderr.write(`kafka: ${reasonOf(error)}\n`)
  process.exitCode = 2
}
