import { parseArgs } from 'node:util'
import { hostAndPort } from '../../processor/contract/address.ts'
import { integer, invalid, number, refused } from '../flags.ts'
import type { Random } from '../random.ts'
import type { Stage } from './stage/stage.ts'

/** What is done to one process. */
export type Verb = 'start' | 'stop' | 'kill' | 'freeze' | 'thaw' | 'cut' | 'heal' | 'wipe'

/** What the scripts are written in. Waiting ends early, with an error, when the drill is stopped. */
export interface Vocabulary extends Pick<Stage, Verb> {
  /** Of processors: those the drill began with. */
  readonly processors: readonly string[]
  readonly random: Random
  /** A processor that owns partitions now. */
  owner(): string
  /** All devices lose their connections at once. */
  storm(): Promise<void>
  /** Load and nothing else, for this share of the drill's time. */
  run(share: number): Promise<void>
  runFor(ms: number): Promise<void>
  /** Until no running processor owns anything of `target`'s any more. */
  lost(target: string): Promise<void>
  /** Until every partition is served by its owner, and has its standbys. */
  steady(): Promise<void>
  /** Ms that are left of the drill's time. */
  left(): number
}

export interface Drill {
  readonly about: string
  /** It can be run on the in-process engine, where all roles are one process. */
  readonly embedded?: true
  /** Fewest processors it makes sense with. */
  readonly least?: number
  /** API processes, behind a balancer when there is more than one. */
  readonly apis?: number
  /** Processors that are up when it begins; below 0: so many fewer than there are. Default: all. */
  readonly first?: number
  /** Share of the messages that go to one partition. */
  readonly hot?: number
  /** Bad payloads a second among the good ones. */
  readonly poison?: number
  script(drill: Vocabulary): Promise<void>
}

const TABLE = {
  watch: {
    about: 'nothing is disturbed: load, readers and checks only',
    embedded: true,
    script: (drill) => drill.run(1),
  },
  join: {
    about: 'a processor joins a cluster under load',
    least: 2,
    async script(drill) {
      const last = drill.processors.at(-1) as string
      await drill.run(0.35)
      await drill.start(last)
      await drill.steady()
      await drill.run(0.35)
    },
    first: -1,
  },
  leave: {
    about: 'a processor is stopped with SIGTERM, and does not come back',
    least: 2,
    async script(drill) {
      await drill.run(0.35)
      await drill.stop(drill.owner())
      await drill.run(0.5)
    },
  },
  kill: {
    about: 'a processor is killed with SIGKILL, and started again',
    embedded: true,
    async script(drill) {
      const victim = drill.owner()
      await drill.run(0.35)
      await drill.kill(victim)
      await drill.run(0.3)
      await drill.start(victim)
      await drill.run(0.2)
    },
  },
  freeze: {
    about: 'a processor stands still (SIGSTOP) until others have its partitions, then wakes: the zombie',
    least: 2,
    async script(drill) {
      const victim = drill.owner()
      await drill.run(0.3)
      await drill.freeze(victim)
      await drill.lost(victim)
      await drill.run(0.2)
      await drill.thaw(victim)
      await drill.run(0.3)
    },
  },
  roll: {
    about: 'every process of every role is restarted in turn, with SIGTERM',
    least: 2,
    apis: 2,
    async script(drill) {
      await drill.run(0.15)
      for (const target of [...drill.processors, 'api-1', 'api-2', 'ingest']) {
        await drill.stop(target)
        await drill.start(target)
        await drill.steady()
        await drill.run(0.05)
      }
      await drill.run(0.15)
    },
  },
  scale: {
    about: 'one processor, then all of them, then one again',
    least: 2,
    first: 1,
    async script(drill) {
      const [, ...others] = drill.processors
      await drill.run(0.2)
      for (const other of others) await drill.start(other)
      await drill.steady()
      await drill.run(0.3)
      for (const other of others) {
        await drill.stop(other)
        await drill.steady()
      }
      await drill.run(0.2)
    },
  },
  restore: {
    about: 'a processor that lost its stores is killed while it restores them',
    least: 2,
    async script(drill) {
      const victim = drill.owner()
      await drill.run(0.4)
      for (let i = 0; i < 2; i++) {
        await drill.kill(victim)
        await drill.wipe(victim)
        await drill.start(victim)
      }
      await drill.steady()
      await drill.run(0.3)
    },
  },
  wipe: {
    about: 'a processor comes back without its store folder',
    embedded: true,
    async script(drill) {
      const victim = drill.owner()
      await drill.run(0.35)
      await drill.kill(victim)
      await drill.wipe(victim)
      await drill.start(victim)
      await drill.steady()
      await drill.run(0.35)
    },
  },
  broker: {
    about: 'Kafka is stopped and started, then killed and started',
    async script(drill) {
      await drill.run(0.25)
      await drill.stop('kafka')
      await drill.start('kafka')
      await drill.steady()
      await drill.run(0.25)
      await drill.kill('kafka')
      await drill.start('kafka')
      await drill.steady()
      await drill.run(0.25)
    },
  },
  cut: {
    about: 'the network between one processor and Kafka is cut, and heals',
    least: 2,
    async script(drill) {
      const [victim] = drill.processors as [string]
      await drill.run(0.25)
      await drill.cut(victim)
      await drill.lost(victim)
      await drill.run(0.15)
      await drill.heal(victim)
      await drill.run(0.3)
    },
  },
  ingest: {
    about: 'the gateway is killed under load, and started again',
    async script(drill) {
      await drill.run(0.35)
      await drill.kill('ingest')
      await drill.run(0.1)
      await drill.start('ingest')
      await drill.run(0.4)
    },
  },
  api: {
    about: 'API processes behind a round-robin balancer are killed in turn',
    apis: 2,
    async script(drill) {
      for (const target of ['api-1', 'api-2']) {
        await drill.run(0.2)
        await drill.kill(target)
        await drill.run(0.1)
        await drill.start(target)
      }
      await drill.run(0.2)
    },
  },
  hot: {
    about: 'four fifths of the messages go to one partition',
    embedded: true,
    hot: 0.8,
    script: (drill) => drill.run(1),
  },
  poison: {
    about: 'bad payloads in the stream',
    embedded: true,
    poison: 50,
    script: (drill) => drill.run(1),
  },
  storm: {
    about: 'all devices lose their connections, and come back at once',
    embedded: true,
    async script(drill) {
      for (let i = 0; i < 3; i++) {
        await drill.run(0.25)
        await drill.storm()
      }
      await drill.run(0.25)
    },
  },
  soak: {
    about: 'random disturbances, one after the other, for the whole time',
    embedded: true,
    async script(drill) {
      await drill.runFor(SOAK_HEAD_MS)
      while (drill.left() > SOAK_TAIL_MS) await disturb(drill)
    },
  },
} as const satisfies Record<string, Drill>

export type DrillName = keyof typeof TABLE

export const DRILLS: Readonly<Record<DrillName, Drill>> = TABLE

/** A soak's time before the first disturbance. */
const SOAK_HEAD_MS = 3_000
/** What a soak leaves of its time for the last disturbance. */
const SOAK_TAIL_MS = 10_000

/** One of a soak's disturbances, and what mends it. */
async function disturb(drill: Vocabulary): Promise<void> {
  const { random } = drill
  const victim = drill.owner()
  const some = (): Promise<void> => drill.runFor(2_000 + random() * 6_000)
  const alone = drill.processors.length === 1
  const choices: (() => Promise<void>)[] = [
    async () => {
      await drill.kill(victim)
      if (!alone) await some()
      await drill.start(victim)
    },
    async () => {
      await drill.kill(victim)
      await drill.wipe(victim)
      await drill.start(victim)
    },
    async () => {
      await drill.stop(victim)
      await drill.start(victim)
    },
    () => drill.storm(),
  ]
  if (!alone) {
    choices.push(
      async () => {
        await drill.freeze(victim)
        await drill.lost(victim)
        await drill.thaw(victim)
      },
      async () => {
        await drill.kill('ingest')
        await drill.start('ingest')
      },
      async () => {
        await drill.kill('kafka')
        await drill.start('kafka')
      },
    )
  }
  await (choices[Math.floor(random() * choices.length)] as () => Promise<void>)()
  await drill.steady()
  await some()
}

export interface DrillOptions {
  readonly name: DrillName
  readonly engine: 'kafka' | 'embedded' | 'attached'
  readonly processors: number
  readonly partitions: number
  readonly devices: number
  /** Messages a second over all devices, and for how long. */
  readonly rate: number
  readonly seconds: number
  /** Requests a second of the dashboards. */
  readonly reads: number
  readonly seed: number
  /** Reads that may fail where none should: a machine with more work than cores answers some too late. */
  readonly failedReads: number
  /** How long what is waited for may take, s. */
  readonly patience: number
  /** Folder of the report; undefined: none is written. */
  readonly report: string | undefined
  /** Of a running cluster, with `attached`. */
  readonly api: string
  readonly mqtt: { readonly host: string; readonly port: number }
  /** The file that starts a role, to show that a broken product is found out; undefined: main.ts. */
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

/** Undefined when only the usage was asked for. Throws ConfigurationError INVALID_CONFIGURATION, in one line. */
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
