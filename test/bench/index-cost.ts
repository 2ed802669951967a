import { join } from 'node:path'
import pino from 'pino'
import { Registry } from 'prom-client'
import type { NewRecord } from '../../processor/contract/record.ts'
import { EmbeddedLog } from '../../processor/log/embedded/embedded-log.ts'
import { Processor } from '../../processor/processor.ts'
import { pause } from '../../processor/runtime/pause.ts'
import { removeFolder, temporaryFolder } from '../../simulators/program.ts'
import { type Figure, percentiles } from './figure.ts'
import { connection, fill, introduction, telemetry } from './fleet-records.ts'

const PARTITIONS = 8
const REPORTS = 20
const MINUTE_MS = 60_000
/** One connection in so many reports is lost, and comes back. */
const LOSSES = 100
const POLL_MS = 5
const STARTED = Date.UTC(2026, 10, 24, 10)
/** With indexes and without in turn, so that what else the machine does falls on both. */
const ROUNDS = 3

interface Took {
  readonly records: number
  readonly ms: number
  /** Processor time of all threads. */
  readonly cpuMs: number
}

/** What the indexes add to the processing of what is in the log already. */
export async function measureIndexCost(devices: number): Promise<Figure[]> {
  return [
    await cost('every minute', devices, MINUTE_MS),
    // The worst: each report moves the device's entry of `lastSeenAt`. A million such devices are 1,667 records/s.
    await cost('every ten minutes', devices, 10 * MINUTE_MS),
  ]
}

async function cost(often: string, devices: number, periodMs: number): Promise<Figure> {
  const on: Took[] = []
  const off: Took[] = []
  for (let round = 0; round < ROUNDS; round++) {
    off.push(await process(devices, periodMs, false))
    on.push(await process(devices, periodMs, true))
  }
  const more = median(on.map(({ cpuMs }, i) => cpuMs / (off[i] as Took).cpuMs))
  const rate = (rounds: readonly Took[]): string => {
    return Math.round(median(rounds.map(({ records, ms }) => (records * 1000) / ms))).toLocaleString('en-US')
  }
  return {
    what: `queries: processor time that the indexes add, devices that report ${often}`,
    value: (more - 1) * 100,
    unit: '%',
    ...(periodMs === MINUTE_MS ? { limit: { atMost: 15 } } : {}),
    note:
      `median of ${ROUNDS} rounds in turn, ${devices.toLocaleString('en-US')} devices with ${REPORTS} reports: ` +
      `${rate(on)} records/s with indexes, ${rate(off)} without`,
  }
}

function median(of: readonly number[]): number {
  return percentiles(of).p50
}

async function process(devices: number, periodMs: number, indexed: boolean): Promise<Took> {
  const folder = await temporaryFolder()
  try {
    await using running = new AsyncDisposableStack()
    const logger = pino({ enabled: false })
    const registry = new Registry()
    const options = { folder: join(folder, 'log'), partitions: PARTITIONS, logger, registry }
    const log = running.use(await EmbeddedLog.open(options))
    const expected = await fill(log, reports(devices, periodMs), PARTITIONS)
    const processor = running.use(
      await Processor.open({
        log,
        instance: 'bench',
        endpoint: 'bench',
        folder: join(folder, 'stores'),
        logger,
        registry,
        now: Date.now,
        indexed,
      }),
    )
    const leaving = new AbortController()
    const [from, cpu] = [performance.now(), globalThis.process.cpuUsage()]
    const membership = processor.run(leaving.signal)
    while (!(await isThrough(processor, expected))) await pause(POLL_MS)
    const ms = performance.now() - from
    const { user, system } = globalThis.process.cpuUsage(cpu)
    leaving.abort()
    await membership
    return { records: expected.reduce((sum, count) => sum + count, 0), ms, cpuMs: (user + system) / 1000 }
  } finally {
    await removeFolder(folder)
  }
}

async function isThrough(processor: Processor, expected: readonly number[]): Promise<boolean> {
  const copies = await processor.reader.copies()
  return expected.every((end, partition) => copies.some((copy) => copy.partition === partition && copy.offset >= end))
}

function* reports(devices: number, periodMs: number): Iterable<NewRecord> {
  for (let report = 0; report < REPORTS; report++) {
    for (let device = 0; device < devices; device++) {
      const at = STARTED + report * periodMs + Math.floor((device * periodMs) / devices)
      if (report === 0) {
        yield* introduction(device, at)
        continue
      }
      yield telemetry(device, report + 1, at)
      if ((device + report) % LOSSES > 0) continue
      yield connection(device, 'offline', 2 * report - 1, at)
      yield connection(device, 'online', 2 * report, at)
    }
  }
}
