import pino from 'pino'
import { describe, expect, test } from 'vitest'
import { RetryableError } from '../../../../../processor/contract/errors.ts'
import { KafkaBounds } from '../../../../../processor/log/kafka/claim/bounds.ts'
import { KafkaCluster } from '../../../../../processor/log/kafka/cluster.ts'
import type { Network } from '../../../../../processor/log/kafka/protocol/broker.ts'
import { WireReader } from '../../../../../processor/log/kafka/protocol/wire.ts'
import { metadataAnswer } from '../metadata-answer.ts'

const PARTITIONS = 50
const NAMES = { telemetry: 't.telemetry', status: 't.status', 'dead-letters': 't.dead-letters' }
const KNOWN = 1

/** One broker. `offset` is called as it answers where a partition begins or ends. */
async function open(offset: (id: { current: number }) => number) {
  const id = { current: KNOWN }
  const metadata: string[][] = []
  const connection = {
    alive: true,
    async send(_key: number, _name: string, _version: number, [request]: [Buffer]) {
      const asked = topicsOf(request)
      metadata.push(asked)
      const leaders = Array.from({ length: PARTITIONS }, () => ({ leader: 0, epoch: 0 }))
      const topics = asked.map((topic) => [topic, { id: id.current, leaders }])
      const answer = metadataAnswer(['one'], Object.fromEntries(topics))
      await new Promise(setImmediate)
      return answer
    },
    requests: {
      async listOffsets({ topics }: { topics: { topic: string; partitions: { partition: number }[] }[] }) {
        // kafkajs sends none in the turn in which it is asked to.
        await new Promise(setImmediate)
        return {
          responses: topics.map(({ topic, partitions }) => ({
            topic,
            partitions: partitions.map(({ partition }) => ({ partition, offset: `${offset(id)}` })),
          })),
        }
      },
    },
  }
  const network = { closed: false, connect: () => Promise.resolve(connection) } as unknown as Network
  const cluster = new KafkaCluster(['one:9092'], Object.values(NAMES), network, pino({ level: 'silent' }))
  const { topics } = await cluster.refresh()
  for (const name of [NAMES.telemetry, NAMES.status]) cluster.ids.hold(name, topics.get(name)?.id ?? '', 1)
  metadata.length = 0
  const closing = new AbortController()
  return { bounds: new KafkaBounds(cluster, NAMES, closing.signal), id, metadata, closing }
}

function topicsOf(request: Buffer): string[] {
  const reader = new WireReader(request)
  reader.tags()
  return reader.compactArray(() => {
    reader.uuid()
    const name = reader.compactString() ?? ''
    reader.tags()
    return name
  })
}

describe('the bounds of a partition', () => {
  test('are not those of a topic that is created anew while they are asked for', async () => {
    const { bounds, closing } = await open((id) => {
      id.current = KNOWN + 1
      closing.abort()
      return 0
    })
    await expect(bounds.bounds({ topic: 'status', index: 0 })).rejects.toMatchObject({
      code: 'LOG_UNAVAILABLE',
      message: expect.stringMatching(/t\.status has the id .* created anew/),
    })
  })

  test('are asked for no further when nobody waits for them', async () => {
    const left = new AbortController()
    let asked = 0
    const { bounds } = await open(() => {
      if (++asked === 3) left.abort()
      throw new RetryableError('LOG_UNAVAILABLE', 'no leader')
    })
    await expect(bounds.bounds({ topic: 'status', index: 0 }, left.signal)).rejects.toThrow('no leader')
    // Each attempt asks two questions.
    expect(asked).toBeLessThanOrEqual(4)
  })

  test('cost one question for the topic in all, however many partitions are asked for at a time', async () => {
    const { bounds, metadata } = await open(() => 7)
    const all = Array.from({ length: PARTITIONS }, (_, index) => bounds.ends(['status', 'dead-letters'], index))
    for (const ends of await Promise.all(all)) {
      expect(ends).toEqual([
        { stable: 7, end: 7 },
        { stable: 7, end: 7 },
      ])
    }
    // The first begins at once, the second when it is answered.
    expect(metadata.length).toBeLessThanOrEqual(2)
    expect(new Set(metadata.flat())).toEqual(new Set([NAMES.status]))
  })
})
