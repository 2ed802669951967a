import pino from 'pino'
import { expect, test } from 'vitest'
import { ConfigurationError } from '../../../../processor/contract/errors.ts'
import { KafkaCluster } from '../../../../processor/log/kafka/cluster.ts'
import { errorOf, type Network, type TopicRequest } from '../../../../processor/log/kafka/protocol/broker.ts'
import { openTopics, topicNames } from '../../../../processor/log/kafka/topics.ts'
import { metadataAnswer, type ToldTopic } from './metadata-answer.ts'

const HOSTS = ['one', 'two', 'three']
const INVALID_REPLICATION_FACTOR = 38
const NO_LIMIT = '9223372036854775807'

/** A cluster of which one more broker is live each time when a topic cannot be created. */
function starting(live = ['one'], minInSync?: number, replicas = 2, altered: Record<string, string> = {}) {
  const topics: Record<string, ToldTopic> = {}
  const connection = {
    alive: true,
    send: () => Promise.resolve(metadataAnswer(live, topics)),
    requests: {
      async createTopics({ topics: [asked] }: { topics: [TopicRequest] }) {
        if (asked.replicationFactor > live.length) {
          live.push(HOSTS[live.length] as string)
          throw Object.assign(new Error('topics'), { errors: [errorOf(INVALID_REPLICATION_FACTOR)] })
        }
        topics[asked.topic] = { id: 1, leaders: [{ leader: 0, epoch: 0 }], replicas }
      },
      describeConfigs: async ({ resources }: { resources: { name: string }[] }) => ({
        resources: minInSync === undefined ? [] : resources.map(({ name }) => settingsOf(name, minInSync, altered)),
      }),
    },
  }
  const network = { closed: false, connect: () => Promise.resolve(connection) } as unknown as Network
  const lines: string[] = []
  const logger = pino({ level: 'warn' }, { write: (line) => lines.push(line) })
  const names = topicNames('t')
  const cluster = new KafkaCluster(['one:9092'], Object.values(names), network, logger)
  return { cluster, names, logger, lines, topics }
}

function settingsOf(topic: string, minInSync: number, altered: Readonly<Record<string, string>>) {
  const settings: Record<string, string> = {
    'cleanup.policy': topic.endsWith('.status') ? 'compact' : 'delete',
    'message.timestamp.type': 'CreateTime',
    'message.timestamp.before.max.ms': NO_LIMIT,
    'message.timestamp.after.max.ms': NO_LIMIT,
    'max.message.bytes': '9999999',
    'min.insync.replicas': String(minInSync),
    'delete.retention.ms': '86400000',
    ...altered,
  }
  const configEntries = Object.entries(settings).map(([configName, configValue]) => ({ configName, configValue }))
  return { resourceName: topic, configEntries }
}

test('topics are created once as many brokers are live as they are to have copies', async () => {
  const { cluster, names, logger, lines, topics } = starting()
  // No setting of theirs is told here.
  const opened = openTopics(cluster, names, { partitions: 1, replication: 3 }, logger)
  await expect(opened).rejects.toThrow(/cleanup\.policy is unknown/)
  expect(Object.keys(topics)).toEqual(Object.values(names))
  expect(lines).toHaveLength(1)
  expect(lines[0]).toMatch(/1 broker is live, too few for the 3 copies that KAFKA_REPLICATION asks for/)
})

test('a topic that more copies are asked of than there are brokers is refused, and the setting is named', async () => {
  const { cluster, names, logger } = starting()
  const options = { partitions: 1, replication: 9, brokersWithinMs: 0 }
  const error: unknown = await openTopics(cluster, names, options, logger).catch((reason: unknown) => reason)
  expect(error).toBeInstanceOf(ConfigurationError)
  expect(String(error)).toMatch(/t\.telemetry cannot be created: .* set KAFKA_REPLICATION to at most 1/)
})

test.each([
  ['one copy', HOSTS, 1, 1, true],
  ['copies that an acknowledgement does not wait for', HOSTS, 1, 3, true],
  ['two copies that it waits for', HOSTS, 2, 3, false],
  ['one copy on the one broker that there is', ['one'], 1, 1, false],
] as const)('topics with %s', async (_what, hosts, minInSync, replicas, warned) => {
  const { cluster, names, logger, lines } = starting([...hosts], minInSync, replicas)
  await openTopics(cluster, names, { partitions: 1 }, logger)
  const told = lines.map((line) => JSON.parse(line))
  const topics = Object.values(names).map((topic) => ({ topic, replicas, minInSyncReplicas: minInSync }))
  const msg = expect.stringContaining('may be on one broker alone')
  expect(told).toEqual(warned ? [expect.objectContaining({ level: 40, brokers: 3, topics, msg })] : [])
})

test.each(['before', 'after', 'difference'])('topics that refuse times by %s.max.ms are refused', async (side) => {
  const setting = `message.timestamp.${side}.max.ms`
  const { cluster, names, logger } = starting(HOSTS, 2, 3, { [setting]: '3600000' })
  const opened = openTopics(cluster, names, { partitions: 1 }, logger)
  await expect(opened).rejects.toMatchObject({
    code: 'LOG_MISMATCH',
    message: expect.stringContaining(`t.telemetry: ${setting} is 3600000, must be ${NO_LIMIT}`),
  })
})
