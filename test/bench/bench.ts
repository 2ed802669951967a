import { writeFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { ConfigurationError } from '../../processor/contract/errors.ts'
import { invalid, refused } from '../../simulators/flags.ts'
import { API_PARTS, apiVersions, measureApi } from './api.ts'
import { EMBEDDED_PARTS, measureEmbedded } from './embedded.ts'
import { type Figure, passes, table } from './figure.ts'
import { CAPACITY_PARTS, type Demand, measureCapacity } from './kafka/capacity.ts'
import { KAFKA_PARTS, kafkaVersions, measureKafka } from './kafka/kafka.ts'
import { describe, machine } from './machine.ts'
import { measurePlacement, PLACEMENT_PARTS } from './placement.ts'

const USAGE = `usage: npm run bench -- embedded|api|kafka|capacity|placement [--only PART,…] [--quick] [--json FILE] [--profile FOLDER]
  --only     of embedded: ${EMBEDDED_PARTS.join(',')}
             of api: ${API_PARTS.join(',')}
             of kafka: ${KAFKA_PARTS.join(',')}
             of capacity: ${CAPACITY_PARTS.join(',')}
  --devices N --rate R  of capacity: so many devices, so many messages a minute of each
  --quick    small sizes, to see that it works: the figures mean little
  --profile  the CPU profiles (.cpuprofile) of the measured processes go there`

/** What a bench is told to do. */
export interface BenchOptions {
  readonly parts: ReadonlySet<string>
  readonly quick: boolean
  /** Further environment of the measured processes. */
  readonly env: Readonly<Record<string, string>>
  /** The fleet that capacity is asked for. Undefined: some usual ones. */
  readonly demand?: Demand | undefined
  /** Takes figures as they come. */
  readonly report: (figures: readonly Figure[]) => void
}

interface Bench {
  readonly parts: readonly string[]
  measure(options: BenchOptions): Promise<void>
  /** What the figures depend on beside the machine. */
  versions(parts: ReadonlySet<string>): Promise<Readonly<Record<string, string>>>
}

const BENCHES: Readonly<Record<string, Bench>> = {
  embedded: { parts: EMBEDDED_PARTS, measure: measureEmbedded, versions: async () => ({}) },
  api: { parts: API_PARTS, measure: measureApi, versions: apiVersions },
  kafka: { parts: KAFKA_PARTS, measure: measureKafka, versions: kafkaVersions },
  capacity: { parts: CAPACITY_PARTS, measure: measureCapacity, versions: kafkaVersions },
  placement: { parts: PLACEMENT_PARTS, measure: measurePlacement, versions: async () => ({}) },
}

interface Arguments extends Omit<BenchOptions, 'report'> {
  readonly bench: Bench
  readonly json: string | undefined
}

/** Undefined when help is asked for. Throws ConfigurationError when the flags are wrong. */
function parse(): Arguments | undefined {
  const { values, positionals } = parseFlags()
  if (values.help) return undefined
  const [name = '', more] = positionals
  const bench = more === undefined && Object.hasOwn(BENCHES, name) ? BENCHES[name] : undefined
  if (bench === undefined)
    throw invalid(`${positionals.join(' ') || 'nothing'} is no bench: ${Object.keys(BENCHES).join(', ')} are`)
  const { profile, quick, json, only, devices, rate } = values
  const parts = new Set(only?.split(',') ?? bench.parts)
  const unknown = [...parts].find((part) => !bench.parts.includes(part))
  if (unknown !== undefined) throw invalid(`--only ${unknown}: parts of ${name} are ${bench.parts.join(', ')}`)
  const env: Record<string, string> =
    profile === undefined ? {} : { NODE_OPTIONS: `--cpu-prof --cpu-prof-dir=${profile}` }
  return { bench, parts, quick, env, json, demand: demandOf(devices, rate) }
}

/** Throws ConfigurationError for half of it, or for what is no number. */
function demandOf(devices: string | undefined, rate: string | undefined): Demand | undefined {
  if (devices === undefined && rate === undefined) return undefined
  const demand = { devices: Number(devices), rate: Number(rate) }
  if (demand.devices > 0 && demand.rate > 0) return demand
  throw invalid('--devices and --rate are two numbers: devices, and messages of one device a minute')
}

function parseFlags() {
  try {
    return parseArgs({
      allowPositionals: true,
      options: {
        help: { type: 'boolean', default: false },
        only: { type: 'string' },
        quick: { type: 'boolean', default: false },
        json: { type: 'string' },
        devices: { type: 'string' },
        rate: { type: 'string' },
        profile: { type: 'string' },
      },
    })
  } catch (error) {
    throw refused(error, '--help lists the flags')
  }
}

async function run({ bench, parts, quick, env, json, demand }: Arguments): Promise<void> {
  const on = machine(await bench.versions(parts))
  process.stdout.write(`${describe(on)}${quick ? 'QUICK sizes: these figures mean little\n' : ''}\n`)
  const figures: Figure[] = []
  const report = (more: readonly Figure[]): void => {
    figures.push(...more)
    process.stdout.write(`${table(more)}\n`)
  }
  await bench.measure({ parts, quick, env, report, demand })
  const missed = figures.filter((figure) => passes(figure) === false)
  process.stdout.write(`${missed.length === 0 ? 'every limit is kept' : `${missed.length} limits are MISSED`}\n`)
  if (json === undefined) return
  const results = figures.map((figure) => ({ ...figure, pass: passes(figure) }))
  const what = { at: new Date().toISOString(), machine: on, quick, figures: results }
  writeFileSync(json, `${JSON.stringify(what, null, 2)}\n`)
}

try {
  const given = parse()
  if (given === undefined) {
    process.stdout.write(`${USAGE}\n`)
  } else {
    // The children end when this process does, which npm may tell twice.
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => process.exit(130))
    await run(given)
  }
} catch (error) {
  if (!(error instanceof ConfigurationError)) throw error
  process.stderr.write(`bench: ${error.message}\n`)
  process.exitCode = 2
}
