import type { Cluster } from '../../../simulators/cluster.ts'
import type { Figure } from '../figure.ts'
import { type IngestSizes, PREFIX } from '../ingest.ts'
import { load } from '../load-process.ts'
import { usage } from '../machine.ts'

/** QoS 1 at saturation through an ingest process: a PUBACK says that Kafka has the message (acks=all). */
export async function measureKafkaIngest(cluster: Cluster, sizes: IngestSizes): Promise<Figure[]> {
  const ingest = await cluster.ingest()
  const { report } = await load({ port: cluster.mqttPort, prefix: PREFIX, connections: 100, ...sizes })
  const used = usage(ingest.child.pid as number)
  await expectAppended(cluster, report.acknowledged)
  return [
    {
      what: `ingest: ${sizes.messages.toLocaleString('en-US')} QoS 1 of ${report.payloadBytes} B acknowledged, 100 connections`,
      value: report.perSecond,
      unit: 'msg/s',
      limit: { atLeast: 80_000 },
      note: `PUBACK p50 ${report.ackMs.p50} ms, p99 ${report.ackMs.p99} ms`,
    },
    {
      what: 'ingest: processor time of the ingest process, all threads',
      value: ((used?.cpuSeconds ?? Number.NaN) / report.acknowledged) * 1e6,
      unit: 'µs/msg',
      note: `generator ${((report.cpuSeconds / report.acknowledged) * 1e6).toFixed(1)} µs/msg, peak memory ${Math.round(used?.peakMiB ?? 0)} MiB`,
    },
  ]
}

/** Throws when the topic has fewer records than were acknowledged. */
async function expectAppended(cluster: Cluster, acknowledged: number): Promise<void> {
  await using log = await cluster.log()
  let appended = 0
  for (let index = 0; index < log.identity.partitions; index++) {
    appended += (await log.bounds({ topic: 'telemetry', index })).end
  }
  if (appended < acknowledged) throw new Error(`${appended} records in Kafka, ${acknowledged} acknowledged`)
}
