import pino from 'pino'
import { expect, test } from 'vitest'
import type { Network } from '../../processor/log/kafka-broker.ts'
import { KafkaCluster } from '../../processor/log/kafka-cluster.ts'
import { WireWriter } from '../../processor/log/kafka-wire.ts'

const HOSTS = ['one', 'two', 'three']

/** Metadata version 12, of three brokers and no topic. */
function metadata(): Buffer {
  const writer = new WireWriter()
    .unsignedVarint(0)
    .int32(0)
    .unsignedVarint(HOSTS.length + 1)
  for (const [id, host] of HOSTS.entries()) {
    writer.int32(id).compactString(host).int32(9092).unsignedVarint(0).unsignedVarint(0)
  }
  return writer.compactString('cluster').int32(0).unsignedVarint(1).unsignedVarint(0).finish()
}

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
          return metadata()
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
