import pino from 'pino'
import { expect, test } from 'vitest'
import { KafkaCluster } from '../../../../processor/log/kafka/cluster.ts'
import type { Network } from '../../../../processor/log/kafka/protocol/broker.ts'
import { metadataAnswer } from './metadata-answer.ts'

const HOSTS = ['one', 'two', 'three']

function refused(host: string): Error {
  return Object.assign(new Error(`ECONNREFUSED ${host}`), { name: 'KafkaJSConnectionError' })
}

/** Brokers of which the dead ones refuse connections, and every live one knows the coordinator. */
function brokers(dead: ReadonlySet<string>, coordinator: number): Network {
  return {
    closed: false,
    async connect(host: string) {
      if (dead.has(host)) throw refused(host)
      return {
        get alive() {
          return !dead.has(host)
        },
        async send() {
          if (dead.has(host)) throw refused(host)
          return metadataAnswer(HOSTS)
        },
        requests: {
          async findGroupCoordinator() {
            if (dead.has(host)) throw refused(host)
            return { coordinator: { nodeId: coordinator } }
          },
        },
      }
    },
  } as unknown as Network
}

test.each(HOSTS)(
  'the coordinator is found while broker %s is dead, though others still take it for live',
  async (victim) => {
    const dead = new Set<string>()
    const coordinator = HOSTS.findIndex((host) => host !== victim)
    const addresses = HOSTS.map((host) => `${host}:9092`)
    const cluster = new KafkaCluster(addresses, [], brokers(dead, coordinator), pino({ level: 'silent' }))
    await cluster.coordinator('lane', 0, 'group')
    dead.add(victim)
    // As any passing error has it do.
    await cluster.forget()
    await expect(cluster.coordinator('lane', 0, 'group')).resolves.toBeDefined()
  },
)
