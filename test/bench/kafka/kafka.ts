import { Cluster } from '../../../simulators/cluster.ts'
import { KAFKA_VERSION, Kafka, requireJava } from '../../../simulators/kafka/kafka.ts'
import type { BenchOptions } from '../bench.ts'
import { measureCorpus } from './corpus.ts'
import { loadRecords } from './fill.ts'
import { measureKafkaIngest } from './ingest.ts'
import { measureMoving } from './moving.ts'
import { measureProcessing } from './processing.ts'
import { measureReads } from './reads.ts'
import { measureRestore } from './restore.ts'

const PARTITIONS = 8
const PEER_THREADS = [1, 2]
const FULL = {
  records: 1_000_000,
  devices: 100_000,
  million: 1_000_000,
  messages: 2_000_000,
  seconds: 10,
  repetitions: 4,
  peerRepetitions: 1,
}
const QUICK = {
  records: 100_000,
  devices: 10_000,
  million: 100_000,
  messages: 100_000,
  seconds: 2,
  repetitions: 1,
  peerRepetitions: 1,
}

export async function kafkaVersions(): Promise<Record<string, string>> {
  return { 'Kafka and Kafka Streams': KAFKA_VERSION, Java: await requireJava() }
}

interface Stage {
  readonly brokers: string
  readonly cluster: Cluster
  readonly sizes: typeof FULL
  /** Another cluster on the same Kafka, with topics of its own. */
  readonly another: () => Promise<Cluster>
}

const STAGES: Readonly<Record<string, (stage: Stage, report: BenchOptions['report']) => Promise<void>>> = {
  async processing({ brokers, cluster, another, sizes: { records, devices } }, report) {
    report(await measureCorpus(brokers, PARTITIONS, another, { records, devices, threads: PEER_THREADS }))
    const load = { load: 'numbers, cyclic', records: () => loadRecords(records, { devices }), count: records }
    const sizes = { ...load, atLeast: 2, threads: PEER_THREADS }
    report((await measureProcessing(brokers, cluster, PARTITIONS, sizes)).figures)
  },
  async million({ brokers, cluster, sizes: { million } }, report) {
    const records = () => loadRecords(million, { devices: million })
    const load = { load: 'numbers, cyclic, as many devices', records, count: million }
    const sizes = { ...load, atLeast: 1.5, threads: PEER_THREADS, residentMiB: 1024 }
    const { figures, application, processor } = await measureProcessing(brokers, cluster, PARTITIONS, sizes)
    report(figures)
    await processor.stop()
    report(await measureRestore(brokers, cluster, PARTITIONS, application))
  },
  async ingest({ cluster, sizes: { messages, devices } }, report) {
    report(await measureKafkaIngest(cluster, { messages, devices }))
  },
  async moving({ brokers, cluster, sizes: { devices, repetitions, peerRepetitions } }, report) {
    report(await measureMoving(brokers, cluster, PARTITIONS, { devices, repetitions, peerRepetitions }))
  },
  async reads({ brokers, cluster, sizes: { devices, seconds } }, report) {
    report(await measureReads(brokers, cluster, PARTITIONS, { devices, seconds }))
  },
}

export const KAFKA_PARTS = Object.keys(STAGES)

/** Every role as a process of its own, on a real Kafka on this machine, beside Kafka Streams. */
export async function measureKafka({ parts, quick, env, report }: BenchOptions): Promise<void> {
  const sizes = quick ? QUICK : FULL
  await using kafka = await Kafka.open()
  const { brokers } = kafka
  for (const part of parts) {
    const another = () => Cluster.open(brokers, PARTITIONS, { LOG_LEVEL: 'info', ...env })
    await using cluster = await another()
    await STAGES[part]?.({ brokers, cluster, sizes, another }, report)
    await cluster.stop()
  }
}
