import { connectAsync } from 'mqtt'
import { pause } from '../../processor/runtime/pause.ts'
import { loadDeviceId } from '../../simulators/load/load-connection.ts'
import { seededRandom } from '../../simulators/random.ts'
import type { DeviceAnswer } from '../system/answers.ts'
import type { Stack } from '../system/stack.ts'
import { checkApplied, partitions, untilApplied } from './applied.ts'
import { type Figure, percentiles } from './figure.ts'
import { httpLoad } from './http-load.ts'
import { PREFIX } from './ingest.ts'
import { KeepAlive } from './keep-alive.ts'
import { LoadProcess } from './load-process.ts'
import { usage } from './machine.ts'

const CONNECTIONS = 100
/** Messages in flight on each: the generator alone is good for more than twice what the process takes. */
const WINDOW = 200
const GETS = { connections: 32, rate: 1_000 }
/** Different devices that are asked for, in turn. */
const PATHS = 2_000
/** Time before anything is measured, once every device is there, ms: the code is compiled for long. */
const WARM_MS = 5_000
const SAMPLE_MS = 250
const POLL_MS = 5
/** Time between two probes, ms. */
const PROBE_MS = 50
/** A device that the load does not write. */
const PROBE = 'overload-probe'
const PROBE_KEEPALIVE_S = 5

export interface OverloadSizes {
  readonly devices: number
  readonly seconds: number
}

/** A load that never ends: 100 connections that always have 200 messages in flight, QoS 1, beside 1,000 GETs a second. */
export async function measureOverload(stack: Stack, { devices, seconds }: OverloadSizes): Promise<Figure[]> {
  const flags = { prefix: PREFIX, connections: CONNECTIONS, window: WINDOW, devices }
  const random = seededRandom(1, 0)
  const paths = Array.from(
    { length: PATHS },
    () => `/v1/devices/${loadDeviceId(PREFIX, Math.floor(random() * devices))}`,
  )
  await using load = await LoadProcess.start({ ...flags, port: stack.mqttPort })
  const outcome = load.outcome()
  outcome.catch(() => {})
  while (((await partitions(stack)).totals.devices ?? 0) < devices) await pause(SAMPLE_MS)
  await pause(WARM_MS)
  const stop = new AbortController()
  const watching = watch(stack, stop.signal)
  const probing = probe(stack, stop.signal)
  const gets = await httpLoad({ ...GETS, port: stack.httpPort, paths, seconds })
  stop.abort()
  const [{ appliedPerSecond, lag }, ages] = await Promise.all([watching, probing])
  load.stop()
  const { report, lastAcknowledged } = await outcome
  const appliedAt = await untilApplied(stack, report.acknowledged)
  await checkApplied(stack, PREFIX, lastAcknowledged)
  const memory = usage(stack.program.child.pid as number)
  const [seen, acked] = [percentiles(ages.visibleMs), percentiles(ages.ackMs)]
  return [
    {
      what: `overload: QoS 1 of ${report.payloadBytes} B acknowledged, ${CONNECTIONS} connections with ${WINDOW} in flight`,
      value: report.perSecond,
      unit: 'msg/s',
      note: `PUBACK p50 ${report.ackMs.p50} ms, p99 ${report.ackMs.p99} ms, max ${report.ackMs.max} ms`,
    },
    {
      what: 'overload: applied',
      value: appliedPerSecond,
      unit: 'msg/s',
      note: `all was applied ${appliedAt - report.lastAcknowledgedAt} ms after the last PUBACK`,
    },
    {
      what: 'overload: acknowledged and not applied, most',
      value: Math.max(...lag),
      unit: 'records',
      note: `p50 ${percentiles(lag).p50}`,
    },
    {
      what: 'overload: PUBACK to visible over HTTP, p99',
      value: seen.p99,
      unit: 'ms',
      limit: { atMost: 2_000 },
      note: `p50 ${Math.round(seen.p50)} ms of ${ages.visibleMs.length}; their PUBACK p50 ${Math.round(acked.p50)} ms, p99 ${Math.round(acked.p99)} ms`,
    },
    { what: 'overload: longest PUBACK', value: report.ackMs.max, unit: 'ms', limit: { atMost: 5_000 } },
    {
      what: `overload: GET of one device, ${GETS.rate}/s, p99`,
      value: gets.ms.p99,
      unit: 'ms',
      limit: { atMost: 100 },
      note: `${Math.round(gets.perSecond)} req/s, p50 ${gets.ms.p50.toFixed(1)} ms, max ${gets.ms.max.toFixed(0)} ms`,
    },
    { what: 'overload: resident memory, peak', value: memory?.peakMiB ?? 0, unit: 'MiB' },
  ]
}

/** Records that were applied, and those that are in the log and were not. */
async function offsets(stack: Stack): Promise<{ applied: number; lag: number }> {
  const { partitions: infos, totals } = await partitions(stack)
  return { applied: infos.reduce((sum, { owner }) => sum + (owner?.offset ?? 0), 0), lag: totals.lag }
}

async function watch(stack: Stack, signal: AbortSignal): Promise<{ appliedPerSecond: number; lag: number[] }> {
  const start = performance.now()
  const { applied: first } = await offsets(stack)
  const lag: number[] = []
  let applied = first
  let at = start
  while (!signal.aborted) {
    await pause(SAMPLE_MS, signal)
    const now = await offsets(stack)
    applied = now.applied
    at = performance.now()
    lag.push(now.lag)
  }
  return { appliedPerSecond: (applied - first) / ((at - start) / 1000), lag }
}

/** A client among the others, with one message in flight: until its PUBACK, and from there until a GET shows it, ms. */
async function probe(stack: Stack, signal: AbortSignal): Promise<{ ackMs: number[]; visibleMs: number[] }> {
  using http = new KeepAlive(stack.httpPort)
  const options = { protocol: 'mqtt', host: '127.0.0.1', port: stack.mqttPort, clientId: PROBE } as const
  const client = await connectAsync({ ...options, keepalive: PROBE_KEEPALIVE_S, reconnectPeriod: 0 })
  const ackMs: number[] = []
  const visibleMs: number[] = []
  try {
    for (let value = 1; !signal.aborted; value++) {
      const sent = performance.now()
      await client.publishAsync(`devices/${PROBE}/telemetry`, JSON.stringify({ value }), { qos: 1 })
      const acknowledged = performance.now()
      ackMs.push(acknowledged - sent)
      while ((await shown(http)) !== value) await pause(POLL_MS)
      visibleMs.push(performance.now() - acknowledged)
      await pause(PROBE_MS)
    }
  } finally {
    await client.endAsync(true)
  }
  return { ackMs, visibleMs }
}

async function shown(http: KeepAlive): Promise<unknown> {
  const { status, text } = await http.send('GET', `/v1/devices/${PROBE}`)
  if (status !== 200 && status !== 404) throw new Error(`GET of the probe: ${status} ${text}`)
  return status === 404 ? undefined : (JSON.parse(text) as DeviceAnswer).reported.value?.value
}
