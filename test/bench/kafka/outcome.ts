import assert from 'node:assert/strict'
import pino from 'pino'
import { KafkaCluster } from '../../../processor/log/kafka/cluster.ts'
import { KafkaFetcher } from '../../../processor/log/kafka/fetcher.ts'
import { Network } from '../../../processor/log/kafka/protocol/broker.ts'

const LIMITS = { maxRecords: 10_000, maxBytes: 8 * 1024 * 1024 }
/** Of the partition that is compared. */
const MAX_COMPARED = 10_000
const PARTITION = 0

/** Throws when the last records per key of two changelogs differ: then one did not do the work that was measured. */
export async function expectSameOutcome(brokers: string, one: string, other: string): Promise<void> {
  const [statuses, others] = await Promise.all([lastPerKey(brokers, one), lastPerKey(brokers, other)])
  assert.equal(statuses.size, others.size, `devices in ${one} and in ${other}`)
  let compared = 0
  for (const [key, json] of statuses) {
    if (compared++ === MAX_COMPARED) return
    const counterpart = others.get(key)
    assert(counterpart, `${key} is in ${one} and not in ${other}`)
    assert.deepEqual(JSON.parse(json.toString()), JSON.parse(counterpart.toString()), key)
  }
}

async function lastPerKey(brokers: string, topic: string): Promise<Map<string, Buffer>> {
  const logger = pino({ level: 'silent' })
  const network = new Network('bench', {}, logger)
  const fetcher = new KafkaFetcher(new KafkaCluster(brokers.split(','), [topic], network, logger), logger)
  const last = new Map<string, Buffer>()
  try {
    for await (const batch of fetcher.follow(topic, PARTITION, 0, LIMITS, new AbortController().signal)) {
      for (const { key, value } of batch.records) {
        if (key !== null && value !== null) last.set(key, Buffer.from(value))
      }
      if (batch.next >= batch.end) return last
    }
    return last
  } finally {
    fetcher.close()
    network.close()
  }
}
