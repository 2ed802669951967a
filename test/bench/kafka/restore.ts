import type { Cluster } from '../../../simulators/cluster.ts'
import type { Figure } from '../figure.ts'
import { usage } from '../machine.ts'
import { firstLine, untilLine } from './processing.ts'
import { Streams } from './streams.ts'

/** A session that the peer's last instance left behind has to end first. */
const PEER_SESSION_MS = 6_000

/** A processor, and an instance of the peer, that have nothing and read the changelog that others have written. */
export async function measureRestore(
  brokers: string,
  cluster: Cluster,
  partitions: number,
  application: string,
): Promise<Figure[]> {
  const peer = await restoreStreams(brokers, cluster, application)
  const { processor, records, perSecond } = await restored(cluster, partitions)
  const used = usage(processor.child.pid as number)
  return [
    {
      what: `restore: ${records.toLocaleString('en-US')} changelog records into an empty store`,
      value: perSecond,
      unit: 'records/s',
      limit: { atLeast: 300_000 },
      peer: { what: `Kafka Streams, ${peer.records.toLocaleString('en-US')} records`, value: peer.perSecond },
      note: `${(((used?.cpuSeconds ?? Number.NaN) / records) * 1e6).toFixed(1)} µs of processor time a record`,
    },
    {
      what: 'restore: resident memory after it',
      value: used?.residentMiB ?? Number.NaN,
      unit: 'MiB',
      limit: { atMost: 1024 },
      note: `peak ${Math.round(used?.peakMiB ?? 0)} MiB`,
    },
  ]
}

/** Starts a processor that has nothing, beside no other. */
export async function restored(cluster: Cluster, partitions: number) {
  const processor = await cluster.processor('restored')
  const end = await untilLine(processor, 'partition running', partitions)
  const records = sum(await cluster.metrics(processor), 'tidemark_restored_records_total')
  const perSecond = (records / (end - firstLine(processor, 'restoring from the changelog'))) * 1000
  return { processor, records, perSecond }
}

async function restoreStreams(brokers: string, cluster: Cluster, application: string) {
  const topic = `${cluster.prefix}.telemetry`
  const options = { brokers, application, topic, threads: 2, sessionTimeoutMs: PEER_SESSION_MS }
  await using streams = await Streams.start(options)
  await streams.event(({ event, open }) => event === 'restored' && open === 0)
  await streams.event(({ event, state }) => event === 'state' && state === 'RUNNING')
  const { records = 0, at, began = 0 } = streams.last('restored')
  return { records, perSecond: (records / (at - began)) * 1000 }
}

/** Of all series of a metric in Prometheus' text. */
function sum(text: string, name: string): number {
  const values = text.split('\n').filter((line) => line.startsWith(`${name}{`))
  return values.reduce((total, line) => total + Number(line.slice(line.lastIndexOf(' '))), 0)
}
