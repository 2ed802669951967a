import { parseArgs } from 'node:util'
import { hostAndPort } from '../../processor/contract/address.ts'
import { integer, invalid, number, refused } from '../flags.ts'
import { DRILLS, type DrillName } from './drills.ts'

export interface DrillOptions {
  readonly name: DrillName
  readonly engine: 'kafka' | 'embedded' | 'attached'
  readonly processors: number
  readonly partitions: number
  readonly devices: number
  /** Messages a second over all devices. */
  readonly rate: number
  readonly seconds: number
  /** Read requests a second. */
  readonly reads: number
  readonly seed: number
  /** Reads that may fail without an excuse: a machine with more work than cores answers some too late. */
  readonly failedReads: number
  /** Longest wait for anything that the cluster is to do, seconds. */
  readonly patience: number
  /** Folder of the report; undefined: no report is written. */
  readonly report: string | undefined
  /** Addresses of the cluster that the drill is attached to. */
  readonly api: string
  readonly mqtt: { readonly host: string; readonly port: number }
  /** The file that starts a role, by which tests put faults into the product; undefined: main.ts. */
  readonly entry: string | undefined
}

const MAX_DEVICES = 100_000

const FLAGS = {
  embedded: { type: 'boolean', default: false },
  attach: { type: 'boolean', default: false },
  processors: { type: 'string', default: '3' },
  partitions: { type: 'string', default: '8' },
  devices: { type: 'string', default: '5000' },
  rate: { type: 'string', default: '5000' },
  seconds: { type: 'string', default: '40' },
  minutes: { type: 'string' },
  reads: { type: 'string', default: '200' },
  seed: { type: 'string', default: '1' },
  'failed-reads': { type: 'string', default: '0' },
  patience: { type: 'string', default: '60' },
  report: { type: 'string' },
  api: { type: 'string', default: 'http://127.0.0.1:8080' },
  mqtt: { type: 'string', default: '127.0.0.1:1883' },
  entry: { type: 'string' },
  help: { type: 'boolean', default: false },
} as const

export function usage(): string {
  const width = Math.max(...Object.keys(DRILLS).map((name) => name.length))
  const drills = Object.entries(DRILLS).map(([name, { about }]) => `  ${name.padEnd(width)}  ${about}`)
  return `usage: npm run drill -- NAME [flags]
${drills.join('\n')}
flags:
  --processors 3    --partitions 8    --devices 5000    --rate 5000 (messages/s)    --seconds 40    --minutes (instead)
  --reads 200 (requests/s)    --seed 1    --report FOLDER (report.html and report.json)
  --failed-reads 0  how many may fail where none should
  --patience 60     s that the cluster may take to come to rest, or to take partitions from a member
  --embedded        the in-process engine instead of Kafka
  --attach          load, readers and checks on a running cluster (KAFKA_BROKERS, --api URL, --mqtt HOST:PORT, and TOPIC_PREFIX,
                    GROUP, STANDBYS and CLUSTER_SECRET as its roles have them; AUTH_TOKEN, of devices:read and ops:read,
                    where it asks for tokens); it starts and ends nothing there
Kafka is started for the drill unless KAFKA_BROKERS names one.
`
}

/** Undefined when only the usage was asked for. Throws ConfigurationError with a message of one line. */
export function parseOptions(argv: readonly string[]): DrillOptions | undefined {
  const { values, positionals } = parse(argv)
  if (values.help) return undefined
  const [given, ...more] = positionals
  const names = Object.keys(DRILLS).join(', ')
  if (given === undefined) throw invalid(`name a drill: ${names}`)
  if (!Object.hasOwn(DRILLS, given)) throw invalid(`there is no drill ${JSON.stringify(given)}: give one of ${names}`)
  if (more.length > 0) throw invalid(`${JSON.stringify(more[0])} is one argument too many: give one drill`)
  if (values.embedded && values.attach) throw invalid('--embedded and --attach: give one of the two')
  const name = given as DrillName
  const engine = values.embedded ? 'embedded' : values.attach ? 'attached' : 'kafka'
  if (engine === 'embedded' && !DRILLS[name].embedded) {
    const which = Object.entries(DRILLS).flatMap(([other, { embedded }]) => (embedded ? [other] : []))
    throw invalid(`${name} needs processes of their own: leave --embedded out, or run one of ${which.join(', ')}`)
  }
  const devices = integer('--devices', values.devices, 1, MAX_DEVICES)
  return {
    name,
    engine,
    processors: integer('--processors', values.processors, DRILLS[name].least ?? 1, 16),
    partitions: integer('--partitions', values.partitions, 1, 64),
    devices,
    rate: integer('--rate', values.rate, 1, 100_000),
    seconds:
      values.minutes === undefined
        ? number('--seconds', values.seconds, 2, 86_400)
        : number('--minutes', values.minutes, 0.05, 1_440) * 60,
    reads: integer('--reads', values.reads, 1, 5_000),
    seed: integer('--seed', values.seed, 0, 2 ** 31 - 1),
    failedReads: integer('--failed-reads', values['failed-reads'], 0, 1_000_000_000),
    patience: number('--patience', values.patience, 1, 3_600),
    report: values.report,
    api: url(values.api),
    mqtt: address(values.mqtt),
    entry: values.entry,
  }
}

/** The command that repeats a run. */
export function commandOf(options: DrillOptions): string {
  const { name, engine, processors, partitions, devices, rate, seconds, reads, seed } = options
  const where = engine === 'kafka' ? '' : engine === 'embedded' ? ' --embedded' : ' --attach'
  const numbers = `--processors ${processors} --partitions ${partitions} --devices ${devices} --rate ${rate}`
  return `npm run drill -- ${name}${where} ${numbers} --seconds ${seconds} --reads ${reads} --seed ${seed}`
}

function parse(argv: readonly string[]) {
  try {
    return parseArgs({ args: [...argv], options: FLAGS, allowPositionals: true })
  } catch (error) {
    throw refused(error, '--help lists the flags')
  }
}

function url(text: string): string {
  if (/^https?:\/\//.test(text) && URL.canParse(text)) return text.replace(/\/+$/, '')
  throw invalid(`--api is ${JSON.stringify(text)}: give a URL such as http://127.0.0.1:8080`)
}

function address(text: string): DrillOptions['mqtt'] {
  if (!/^([^:\s]+|\[[^\s\]]+\]):\d{1,5}$/.test(text))
    throw invalid(`--mqtt is ${JSON.stringify(text)}: give host:port, such as 127.0.0.1:1883`)
  const { host, port } = hostAndPort(text)
  return { host, port: integer('the port of --mqtt', String(port), 1, 65_535) }
}
