import { readdirSync, statSync } from 'node:fs'
import { join, sep } from 'node:path'
import { pause } from '../../../processor/runtime/pause.ts'
import { Cluster } from '../../../simulators/cluster.ts'
import { Kafka } from '../../../simulators/kafka/kafka.ts'
import { loadDeviceId } from '../../../simulators/load/load-connection.ts'
import { type Program, removeFolder, temporaryFolder } from '../../../simulators/program.ts'
import type { BenchOptions } from '../bench.ts'
import type { Figure } from '../figure.ts'
import { httpLoad } from '../http-load.ts'
import { PREFIX } from '../ingest.ts'
import { LoadProcess } from '../load-process.ts'
import { usage } from '../machine.ts'
import { loadRecords } from './fill.ts'
import { fillTopic, processAll } from './processing.ts'
import { restored } from './restore.ts'

export const CAPACITY_PARTS = ['units', 'scale']

const PARTITIONS = 8
const STANDBYS = 1
/** What the units are measured with: a load that leaves every process some time to rest. */
const FULL = { devices: 100_000, rate: 10_000, gets: 500, warmUpSeconds: 10, seconds: 20, scale: [10_000, 1_000_000] }
const QUICK = { devices: 10_000, rate: 1_000, gets: 100, warmUpSeconds: 2, seconds: 4, scale: [1_000, 10_000] }
/** Share of a core that a process may use on average. */
const BUSY = 0.6
/** Telemetry is kept this long, seconds: Kafka's default. */
const RETENTION_SECONDS = 7 * 86_400
/** Copies of each record in Kafka. */
const REPLICAS = 3
/** Cores that one processor process can use: its main thread, and what RocksDB and the collector do beside it. */
const CORES_OF_ONE = 1.5
/** Partitions for each processor, so that load spreads evenly. */
const PARTITIONS_OF_ONE = 4
const GIB = 1024 ** 3

/** What one message, one read and one device cost. */
interface Units {
  /** Processor time, µs. */
  readonly ingest: number
  readonly owner: number
  readonly standby: number
  readonly kafka: number
  readonly apiGet: number
  readonly processorGet: number
  /** Bytes. */
  readonly telemetry: number
  readonly changelog: number
  readonly disk: number
  /** Changelog records a second that a restore reads. */
  readonly restorePerSecond: number
}

export interface Demand {
  readonly devices: number
  /** Messages of one device a minute. */
  readonly rate: number
}

const DEMANDS: readonly Demand[] = [10_000, 1_000_000, 100_000_000].flatMap((devices) => [
  { devices, rate: 1 },
  { devices, rate: 6 },
])

/** Measures what one message and one device cost on this machine, and reckons what fleets need. */
export async function measureCapacity({ parts, quick, env, report, demand }: BenchOptions): Promise<void> {
  const sizes = quick ? QUICK : FULL
  const data = await temporaryFolder()
  await using held = new AsyncDisposableStack()
  held.defer(() => removeFolder(data))
  const kafka = held.use(await Kafka.open({ data }))
  const open = () => Cluster.open(kafka.brokers, PARTITIONS, { LOG_LEVEL: 'info', STANDBYS: String(STANDBYS), ...env })
  if (parts.has('units')) {
    await using cluster = await open()
    const units = await measureUnits(kafka, data, cluster, sizes)
    report(figuresOf(units, sizes))
    for (const one of demand === undefined ? DEMANDS : [demand]) report(needsOf(one, units))
  }
  if (parts.has('scale')) report(await measureScale(kafka, open, sizes))
}

async function measureUnits(kafka: Kafka, data: string, cluster: Cluster, sizes: typeof FULL): Promise<Units> {
  const { devices, rate, gets, warmUpSeconds, seconds } = sizes
  await fillTopic(cluster, loadRecords(devices, { devices }))
  const telemetry = logBytes(data, `${cluster.prefix}.telemetry`) / devices
  const { processor } = await processAll(kafka.brokers, cluster, PARTITIONS, devices)
  const changelog = logBytes(data, `${cluster.prefix}.status`) / devices
  const disk = bytesIn(join(cluster.dataDir, 'first')) / devices
  const ingest = await cluster.ingest()
  const api = await cluster.api()
  const load = await LoadProcess.start({ port: cluster.mqttPort, prefix: PREFIX, devices, rate })
  const measured = async (...pids: (number | undefined)[]): Promise<number[]> => {
    await pause(warmUpSeconds * 1000)
    const before = pids.map(cpuSeconds)
    await pause(seconds * 1000)
    return pids.map((pid, i) => cpuSeconds(pid) - (before[i] as number))
  }
  const perMessage = (cpu: number): number => (cpu / (rate * seconds)) * 1e6
  const alone = (await measured(ingest.child.pid, processor.child.pid, kafka.pid)).map(perMessage)
  const paths = Array.from({ length: 1_000 }, (_, i) => `/v1/devices/${loadDeviceId(PREFIX, (i * 7_919) % devices)}`)
  const reading = httpLoad({
    port: cluster.httpPort,
    paths,
    connections: 10,
    rate: gets,
    seconds: warmUpSeconds + seconds,
  })
  const [apiCpu = 0, beside = 0] = await measured(api.child.pid, processor.child.pid)
  await reading
  const second: Program = await cluster.processor('second')
  const [first = 0, other = 0] = await measured(processor.child.pid, second.child.pid)
  await load[Symbol.asyncDispose]()
  await Promise.all([processor.stop(), second.stop()])
  const { perSecond } = await restored(cluster, PARTITIONS)
  return {
    ingest: alone[0] as number,
    owner: alone[1] as number,
    standby: Math.max(0, perMessage(first + other) - (alone[1] as number)) / STANDBYS,
    kafka: alone[2] as number,
    apiGet: (apiCpu / (gets * seconds)) * 1e6,
    processorGet: Math.max(0, (beside * 1e6 - (alone[1] as number) * rate * seconds) / (gets * seconds)),
    telemetry,
    changelog,
    disk,
    restorePerSecond: perSecond,
  }
}

/** How throughput changes with the number of devices, for the same number of records. */
async function measureScale(kafka: Kafka, open: () => Promise<Cluster>, { scale }: typeof FULL): Promise<Figure[]> {
  const [few = 0, many = 0] = scale
  const rates: number[] = []
  for (const devices of [few, many]) {
    await using cluster = await open()
    await fillTopic(cluster, loadRecords(many, { devices }))
    rates.push((await processAll(kafka.brokers, cluster, PARTITIONS, many)).perSecond)
    await cluster.stop()
  }
  const [least = 0, most = 0] = rates
  return [
    {
      what: `scale: ${many.toLocaleString('en-US')} records of as many devices, of the rate with ${few.toLocaleString('en-US')}`,
      value: (most / least) * 100,
      unit: '%',
      limit: { atLeast: 70 },
      note: `${Math.round(most).toLocaleString('en-US')} and ${Math.round(least).toLocaleString('en-US')} records/s`,
    },
  ]
}

function figuresOf(units: Units, { rate }: typeof FULL): Figure[] {
  const at = `at ${rate.toLocaleString('en-US')} messages/s`
  const micros = (what: string, value: number, note = at): Figure => ({
    what: `unit: ${what}`,
    value,
    unit: 'µs',
    note,
  })
  return [
    micros('processor time of ingest for a message', units.ingest),
    micros('of the owner', units.owner),
    micros('of a standby', units.standby),
    micros('of one Kafka broker', units.kafka),
    micros('of the API for a GET', units.apiGet, ''),
    micros('of the processor for a GET', units.processorGet, ''),
    bytes('a message in the telemetry topic', units.telemetry),
    bytes('a device in the changelog', units.changelog),
    bytes('a device on the disk of each copy', units.disk, 'indexes and write-ahead log included'),
  ]
}

function bytes(what: string, value: number, note = ''): Figure {
  return { what: `unit: ${what}`, value, unit: 'bytes', note }
}

/** What a fleet needs. Cores are those that its processes use 60 % of. */
function needsOf({ devices, rate }: Demand, units: Units): Figure[] {
  const perSecond = (devices * rate) / 60
  const cores = (micros: number): number => (perSecond * micros) / 1e6 / BUSY
  const processing = cores(units.owner + STANDBYS * units.standby)
  const processors = Math.max(1 + STANDBYS, Math.ceil(processing / CORES_OF_ONE))
  const name = `${devices.toLocaleString('en-US')} devices, ${rate} a minute each`
  const line = (what: string, value: number, unit: string, note = ''): Figure => {
    return { what: `${name}: ${what}`, value, unit, note }
  }
  const written = perSecond * (units.telemetry + units.changelog)
  return [
    line('messages', perSecond, '/s'),
    line('cores of ingest', cores(units.ingest), 'cores'),
    line(
      'cores of processors',
      processing,
      'cores',
      `${processors} processors, ${partitionsFor(processors)} partitions`,
    ),
    line('disk of all stores', (devices * units.disk * (1 + STANDBYS)) / GIB, 'GiB'),
    line("Kafka's cores", cores(units.kafka) * REPLICAS, 'cores'),
    line('into Kafka', (written * REPLICAS) / 1e6, 'MB/s', `${REPLICAS} replicas`),
    line(
      "Kafka's disk",
      (REPLICAS * (perSecond * units.telemetry * RETENTION_SECONDS + devices * units.changelog)) / GIB,
      'GiB',
      'telemetry of 7 days, and the changelog',
    ),
    line('restore of one lost store', devices / processors / units.restorePerSecond, 's'),
  ]
}

function partitionsFor(processors: number): number {
  return Math.max(PARTITIONS, processors * PARTITIONS_OF_ONE)
}

function cpuSeconds(pid: number | undefined): number {
  return pid === undefined ? Number.NaN : (usage(pid)?.cpuSeconds ?? Number.NaN)
}

/** Bytes of the files in `folder` whose path `counts`. */
function bytesIn(folder: string, counts: (path: string) => boolean = () => true): number {
  const files = readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter(counts)
  return files.reduce((sum, file) => sum + statSync(join(folder, file)).size, 0)
}

/** Bytes of a topic's records on the one broker. */
function logBytes(data: string, topic: string): number {
  return bytesIn(data, (path) => path.includes(`${sep}${topic}-`) && path.endsWith('.log'))
}
