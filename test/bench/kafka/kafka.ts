import { Cluster } from '../../../simulators/cluster.ts'
import { KAFKA_VERSION, requireJava } from '../../../simulators/kafka/artifacts.ts'
import { Kafka } from '../../../simulators/kafka.ts'
import type { BenchOptions } from '../bench.ts'
import { measureProcessing } from './processing.ts'

export const KAFKA_PARTS = ['processing', 'million']

const PARTITIONS = 8
const FULL = { records: 1_000_000, devices: 100_000, million: 1_000_000 }
const QUICK = { records: 100_000, devices: 10_000, million: 100_000 }
const PEER_THREADS = [1, 2]

export async function kafkaVersions(): Promise<Record<string, string>> {
  return { 'Kafka and Kafka Streams': KAFKA_VERSION, Java: await requireJava() }
}

/** Every role as a process of its own, on a real Kafka on this machine, beside Kafka Streams. */
export async function measureKafka({ parts, quick, env, report }: BenchOptions): Promise<void> {
  const sizes = quick ? QUICK : FULL
  await using kafka = await Kafka.open()
  const { brokers } = kafka
  const open = (): Promise<Cluster> => Cluster.open(brokers, PARTITIONS, { LOG_LEVEL: 'info', ...env })
  if (parts.has('processing')) {
    await using cluster = await open()
    const { records, devices } = sizes
    const processing = { records, devices, atLeast: 2, threads: PEER_THREADS }
    const { figures, processor } = await measureProcessing(brokers, cluster, PARTITIONS, processing)
    report(figures)
    await processor.stop()
  }
  if (parts.has('million')) {
    await using cluster = await open()
    const { million } = sizes
    const processing = { records: million, devices: million, atLeast: 1.5, threads: PEER_THREADS }
    const { figures, processor } = await measureProcessing(brokers, cluster, PARTITIONS, processing)
    report(figures)
    await processor.stop()
  }
}
