import pino from 'pino'
import { describe, expect, test } from 'vitest'
import { KafkaCluster } from '../../../../processor/log/kafka/cluster.ts'
import type { Network } from '../../../../processor/log/kafka/protocol/broker.ts'
import { metadataAnswer, type ToldTopic } from './metadata-answer.ts'

const HOSTS = ['one', 'two', 'three']
const BEFORE: ToldTopic = { id: 1, leaders: [{ leader: 0, epoch: 6 }] }
const AFTER: ToldTopic = { id: 1, leaders: [{ leader: 1, epoch: 7 }] }

/** Three brokers, each of which tells what `told` says it knows of the topic `t`; undefined: it says nothing. */
function open(told: (host: string) => ToldTopic | undefined) {
  const asked: string[] = []
  const network = {
    closed: false,
    connect: (host: string) =>
      Promise.resolve({
        alive: true,
        send: () => {
          asked.push(host)
          const topic = told(host)
          if (topic === undefined) return new Promise<Buffer>(() => {})
          return Promise.resolve(metadataAnswer(HOSTS, { t: topic }))
        },
      }),
  } as unknown as Network
  const addresses = HOSTS.map((host) => `${host}:9092`)
  return { asked, cluster: new KafkaCluster(addresses, ['t'], network, pino({ level: 'silent' })) }
}

describe('what is known of a cluster', () => {
  test('is asked of each broker in turn', async () => {
    const { cluster, asked } = open(() => AFTER)
    for (let i = 0; i < 6; i++) await cluster.refresh()
    expect(asked).toEqual(['one', 'two', 'three', 'one', 'two', 'three'])
    expect((await cluster.metadata()).topics.get('t')).toMatchObject({ leaders: [1], epochs: [7], replicas: 2 })
  })

  test.each(HOSTS)('does not go back to what broker %s tells, which is cut off from the others', async (cutOff) => {
    const { cluster } = open((host) => (host === cutOff ? BEFORE : AFTER))
    // As after an answer of a leader of before.
    for (let i = 0; i < 2; i++) await cluster.forget()
    for (let i = 0; i < 3; i++) {
      expect(await cluster.leader('t', 0)).toBe(1)
      await cluster.refresh()
    }
  })

  test('is that of a topic which was created anew, whatever the epochs of the former one', async () => {
    let topic = AFTER
    const { cluster } = open(() => topic)
    await cluster.refresh()
    topic = { id: 2, leaders: [{ leader: 2, epoch: 0 }] }
    await cluster.refresh()
    expect(await cluster.leader('t', 0)).toBe(2)
  })

  test('comes from another broker when one says nothing, which is asked last then', async () => {
    const { cluster, asked } = open((host) => (host === 'two' ? undefined : AFTER))
    await cluster.refresh()
    await cluster.refresh()
    expect(asked).toEqual(['one', 'two', 'three'])
    await cluster.refresh()
    await cluster.refresh()
    expect(asked.slice(3)).toEqual(['one', 'three'])
  })
})
