import { join } from 'node:path'
import pino from 'pino'
import { Registry } from 'prom-client'
import type { NewRecord } from '../../processor/contract/record.ts'
import { EmbeddedLog } from '../../processor/log/embedded/embedded-log.ts'
import type { LoadReport } from '../../simulators/load/load.ts'
import { loadDeviceId } from '../../simulators/load/load-connection.ts'
import { removeFolder, temporaryFolder } from '../../simulators/program.ts'
import { seededRandom } from '../../simulators/random.ts'
import { Stack } from '../system/stack.ts'
import { countOf, untilApplied, untilGone } from './applied.ts'
import type { BenchOptions } from './bench.ts'
import { type Figure, percentiles } from './figure.ts'
import { connection, fill, introduction, SITES, telemetry } from './fleet-records.ts'
import { type HttpLoad, type HttpLoadReport, httpLoad } from './http-load.ts'
import { measureIndexCost } from './index-cost.ts'
import { PREFIX } from './ingest.ts'
import { KeepAlive } from './keep-alive.ts'
import { type LoadFlags, LoadProcess } from './load-process.ts'

export interface QuerySizes {
  readonly devices: number
  readonly seconds: number
  /** Of the fleet on which the cost of the indexes is measured. */
  readonly costDevices: number
}

const PARTITIONS = 8
/** One in a hundred, in runs of this many neighbours, is offline; one in ten of those has been silent since yesterday. */
const RUN = 500
const OFFLINE = 100
const SILENT = 10
const DAY_MS = 24 * 3600_000
const PAGE = 50
/** Pages that lie deep are those from here to the next so many. */
const DEEP = 100
const DEEP_PAGES = 50
const BESIDE = { connections: 50, rate: 500 }
const MESSAGES_PER_SECOND = 2_000
const MAX_COUNTS = 5
const QUIET_COUNTS = 4

/** Searches of one process with all roles, on the embedded log; what the indexes cost is measured within this process. */
export async function measureQueries(
  sizes: QuerySizes,
  { env, report }: Omit<BenchOptions, 'parts' | 'quick'>,
): Promise<void> {
  const dataDir = await temporaryFolder()
  try {
    const records = await seed(dataDir, sizes.devices)
    await using stack = await Stack.start({ env: { PARTITIONS: String(PARTITIONS), ...env }, dataDir })
    await untilApplied(stack, records)
    report(await measurePages(stack, sizes.seconds))
    report(await measureSummaries(stack, sizes))
    report(await measureScan(stack, sizes))
    await stack.stop()
  } finally {
    await removeFolder(dataDir)
  }
  report(await measureIndexCost(sizes.costDevices))
}

/** The input of the fleet, as if it had come over MQTT; how many records. */
async function seed(dataDir: string, devices: number): Promise<number> {
  const options = { folder: join(dataDir, 'log'), partitions: PARTITIONS, logger: pino({ enabled: false }) }
  await using log = await EmbeddedLog.open({ ...options, registry: new Registry() })
  const counts = await fill(log, fleet(devices, Date.now()), PARTITIONS)
  return counts.reduce((sum, count) => sum + count, 0)
}

function* fleet(devices: number, now: number): Iterable<NewRecord> {
  for (let device = 0; device < devices; device++) {
    const isOffline = Math.floor(device / RUN) % OFFLINE === 0
    const isSilent = isOffline && device % SILENT === 0
    yield* introduction(device, now - DAY_MS)
    if (!isSilent) yield telemetry(device, 2, now)
    if (isOffline) yield connection(device, 'offline', 2, now)
  }
}

function search(q: string, more = ''): string {
  return `/v1/devices?limit=${PAGE}&q=${encodeURIComponent(q)}${more}`
}

async function measurePages(stack: Stack, seconds: number): Promise<Figure[]> {
  const sites = Array.from({ length: SITES }, (_, i) => `attributes.site:k${i}`)
  const hourAgo = new Date(Date.now() - 3600_000).toISOString()
  const deep = await deepCursors(stack)
  const asked: readonly { what: string; paths: readonly string[]; limited: boolean }[] = [
    { what: 'a site', paths: sites.map((q) => search(q)), limited: true },
    {
      what: 'the offline devices of a site',
      paths: sites.map((q) => search(`connectivity.state:offline AND ${q}`)),
      limited: true,
    },
    { what: 'the offline devices', paths: [search('connectivity.state:offline')], limited: true },
    { what: `the offline devices, from page ${DEEP} on`, paths: deep, limited: true },
    { what: 'the devices silent for an hour', paths: [search(`lastSeenAt:<${hourAgo}`)], limited: true },
    {
      what: 'the same, the longest silent first',
      paths: [search(`lastSeenAt:<${hourAgo}`, '&sort=lastSeenAt')],
      limited: false,
    },
    {
      what: 'the whole fleet, the longest silent first',
      paths: [`/v1/devices?limit=${PAGE}&sort=lastSeenAt`],
      limited: false,
    },
  ]
  const figures: Figure[] = []
  for (const { what, paths, limited } of asked) {
    await httpLoad({ port: stack.httpPort, connections: 1, seconds: seconds / 2, paths })
    const { ms, requests } = await httpLoad({ port: stack.httpPort, connections: 1, seconds, paths })
    figures.push({
      what: `queries: page of ${PAGE} of ${what}, p99`,
      value: ms.p99,
      unit: 'ms',
      ...(limited ? { limit: { atMost: 20 } } : {}),
      note: `p50 ${ms.p50.toFixed(1)} ms, ${requests} requests one by one`,
    })
  }
  return figures
}

/** Where pages far behind the first begin. */
async function deepCursors(stack: Stack): Promise<string[]> {
  using http = new KeepAlive(stack.httpPort)
  const first = search('connectivity.state:offline')
  const paths: string[] = []
  let cursor: string | undefined
  for (let page = 0; page < DEEP + DEEP_PAGES; page++) {
    const path = cursor === undefined ? first : `${first}&cursor=${cursor}`
    const { nextCursor }: { nextCursor?: string } = await http.json('GET', path)
    if (page >= DEEP) paths.push(path)
    cursor = nextCursor
    // A small fleet has fewer pages.
    if (cursor === undefined) break
  }
  return paths.length > 0 ? paths : [first]
}

async function measureSummaries(stack: Stack, { devices, seconds }: QuerySizes): Promise<Figure[]> {
  const figures: Figure[] = []
  for (const by of ['connectivity.state', 'attributes.type', 'connectivity.state,attributes.type']) {
    const path = `/v1/fleet/summary?by=${by}`
    const { devices: counted } = await stack.json<{ devices: number }>(path)
    if (counted !== devices) throw new Error(`a summary by ${by} counts ${counted} of ${devices} devices`)
    const { ms } = await httpLoad({ port: stack.httpPort, connections: 1, seconds: seconds / 2, paths: [path] })
    figures.push({
      what: `queries: summary by ${by}, p99`,
      value: ms.p99,
      unit: 'ms',
      limit: { atMost: 100 },
      note: `p50 ${ms.p50.toFixed(1)} ms`,
    })
  }
  return figures
}

/** Counts that look at every device, with GETs and a load of messages beside them; and the same without the counts. */
async function measureScan(stack: Stack, { devices, seconds }: QuerySizes): Promise<Figure[]> {
  const random = seededRandom(2, 0)
  const paths = Array.from({ length: 2_000 }, () => {
    return `/v1/devices/${loadDeviceId(PREFIX, Math.floor(random() * devices))}`
  })
  const gets: HttpLoad = { ...BESIDE, seconds, port: stack.httpPort, paths }
  const load = { port: stack.mqttPort, prefix: PREFIX, devices, rate: MESSAGES_PER_SECOND }
  const { alone, idleReport, offline } = await measureAlone(stack, load, gets)
  await untilGone(stack, 'offline', offline)
  const [first = Number.NaN, ...warm] = await countsFor(stack, devices, QUIET_COUNTS)
  await using busy = await LoadProcess.start(load)
  let counting = true
  const counts = countsFor(stack, devices, MAX_COUNTS, () => counting)
  const beside = await httpLoad({ ...gets, seconds: Math.max(seconds, 10) })
  counting = false
  const took = await counts
  busy.stop()
  const { report } = await busy.outcome()
  return [
    {
      what: `queries: count that scans ${devices.toLocaleString('en-US')} devices`,
      value: percentiles(warm).p50 / 1000,
      unit: 's',
      limit: { atMost: 3 },
      note: `the first, in a new thread, ${(first / 1000).toFixed(1)} s; with GETs and messages beside it ${(percentiles(took).p50 / 1000).toFixed(1)} s`,
    },
    {
      what: `queries: GET beside such counts, ${BESIDE.rate}/s, and ${MESSAGES_PER_SECOND} messages/s, p99`,
      value: beside.ms.p99,
      unit: 'ms',
      limit: { atMost: 20 },
      note: `p50 ${beside.ms.p50.toFixed(1)} ms; without counts p99 ${alone.ms.p99.toFixed(1)} ms`,
    },
    {
      what: 'queries: PUBACK beside such counts, p99',
      value: report.ackMs.p99,
      unit: 'ms',
      limit: { atMost: 20 },
      note: `p50 ${report.ackMs.p50} ms; without counts p99 ${idleReport.ackMs.p99} ms`,
    },
  ]
}

/** `offline`: devices that are it when those of the load are too. */
async function measureAlone(
  stack: Stack,
  load: LoadFlags,
  gets: HttpLoad,
): Promise<{ alone: HttpLoadReport; idleReport: LoadReport; offline: number }> {
  await using idle = await LoadProcess.start(load)
  // The code of the messages' way is cold until then, and what the fleet's beginning left to compact is being compacted.
  await httpLoad({ ...gets, seconds: Math.max(gets.seconds, 5) })
  const alone = await httpLoad(gets)
  idle.stop()
  const { report, lastAcknowledged } = await idle.outcome()
  await untilApplied(stack, 0)
  const silenced = lastAcknowledged.reduce((sum, seq) => sum + Math.min(seq, 1), 0)
  return { alone, idleReport: report, offline: (await countOf(stack, 'offline')) + silenced }
}

/** ms of each count. */
async function countsFor(stack: Stack, devices: number, most: number, goOn = () => true): Promise<number[]> {
  using http = new KeepAlive(stack.httpPort)
  const took: number[] = []
  while (took.length < most && (goOn() || took.length === 0)) {
    const from = performance.now()
    const path = `/v1/devices/count?q=${encodeURIComponent('reported.temperature:>=0')}`
    const { count, complete } = await http.json<{ count: number; complete: boolean }>('GET', path)
    took.push(performance.now() - from)
    // One that is cut short has taken the longest that a search may.
    if (complete && count !== devices) throw new Error(`${count} of ${devices} devices are counted`)
  }
  return took
}
