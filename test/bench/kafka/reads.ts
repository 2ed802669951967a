import type { Cluster } from '../../../simulators/cluster.ts'
import { loadDeviceId } from '../../../simulators/load/load-connection.ts'
import { seededRandom } from '../../../simulators/random.ts'
import type { Figure } from '../figure.ts'
import { httpLoad } from '../http-load.ts'
import { PREFIX } from '../ingest.ts'
import { LoadProcess } from '../load-process.ts'
import { usage } from '../machine.ts'
import { loadRecords } from './fill.ts'
import { fillTopic, processAll } from './processing.ts'

const CONNECTIONS = 32
const PACED_CONNECTIONS = 50
const PACED_PER_SECOND = 2_000
/** GETs beside messages, after brokers and processes have had some seconds of both: code is compiled for long. */
const BESIDE = { connections: 50, rate: 500 }
const MESSAGES_PER_SECOND = 2_000
const WARM_UP = 3
/** Different devices asked for, in turn. */
const PATHS = 20_000

export interface ReadsSizes {
  readonly devices: number
  readonly seconds: number
}

/** GETs of one device each, through an api process that asks a processor process. */
export async function measureReads(
  brokers: string,
  cluster: Cluster,
  partitions: number,
  { devices, seconds }: ReadsSizes,
): Promise<Figure[]> {
  await fillTopic(cluster, loadRecords(devices, { devices }))
  const { processor } = await processAll(brokers, cluster, partitions, devices)
  const api = await cluster.api()
  const random = seededRandom(1, 0)
  const paths = Array.from({ length: PATHS }, () => {
    return `/v1/devices/${loadDeviceId(PREFIX, Math.floor(random() * devices))}`
  })
  const port = cluster.httpPort
  // The code is compiled when it has run for a while; a service is asked for longer than that.
  await httpLoad({ port, paths, seconds: seconds / 5, connections: CONNECTIONS })
  const cpu = (): number[] => [api, processor].map(({ child }) => usage(child.pid as number)?.cpuSeconds ?? Number.NaN)
  const before = cpu()
  const most = await httpLoad({ port, paths, seconds, connections: CONNECTIONS })
  const micros = cpu().map((used, i) => ((used - (before[i] as number)) / most.requests) * 1e6)
  const paced = await httpLoad({ port, paths, seconds, connections: PACED_CONNECTIONS, rate: PACED_PER_SECOND })
  const beside = await besideMessages(cluster, { port, paths, seconds, devices })
  const times = ({ ms }: typeof most): string => `p50 ${ms.p50.toFixed(2)} ms, max ${ms.max.toFixed(1)} ms`
  return [
    {
      what: `reads: GET of one device of ${devices.toLocaleString('en-US')}, ${CONNECTIONS} connections`,
      value: most.perSecond,
      unit: 'req/s',
      limit: { atLeast: 20_000 },
      note: `api ${micros[0]?.toFixed(1)} µs, processor ${micros[1]?.toFixed(1)} µs of processor time each`,
    },
    { what: 'reads: the same, p99', value: most.ms.p99, unit: 'ms', limit: { atMost: 10 }, note: times(most) },
    {
      what: `reads: at ${PACED_PER_SECOND.toLocaleString('en-US')} GET/s, p99`,
      value: paced.ms.p99,
      unit: 'ms',
      limit: { atMost: 2 },
      note: `${Math.round(paced.perSecond)} req/s, ${times(paced)}`,
    },
    {
      what: `reads: GET, ${BESIDE.rate}/s, beside ${MESSAGES_PER_SECOND.toLocaleString('en-US')} messages/s, p99`,
      value: beside.gets.ms.p99,
      unit: 'ms',
      note: `two processors with standbys; ${times(beside.gets)}`,
    },
    {
      what: 'reads: PUBACK of those messages, p99',
      value: beside.ackMs.p99,
      unit: 'ms',
      note: `p50 ${beside.ackMs.p50} ms, warm-up included`,
    },
  ]
}

/** With a second processor and their standbys, an ingest process, and messages over MQTT. */
async function besideMessages(
  cluster: Cluster,
  { port, paths, seconds, devices }: { port: number; paths: readonly string[]; seconds: number; devices: number },
) {
  await cluster.processor('second')
  const ingest = await cluster.ingest()
  await using load = await LoadProcess.start({
    port: cluster.mqttPort,
    prefix: PREFIX,
    devices,
    rate: MESSAGES_PER_SECOND,
  })
  await httpLoad({ ...BESIDE, port, paths, seconds: WARM_UP * seconds })
  const gets = await httpLoad({ ...BESIDE, port, paths, seconds })
  load.stop()
  const { ackMs } = (await load.outcome()).report
  await ingest.stop()
  return { gets, ackMs }
}
