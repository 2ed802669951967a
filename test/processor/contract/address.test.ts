import { networkInterfaces } from 'node:os'
import pino from 'pino'
import { Registry } from 'prom-client'
import { describe, expect, test } from 'vitest'
import { addressOf, hostAndPort } from '../../../processor/contract/address.ts'
import { KafkaCluster } from '../../../processor/log/kafka/cluster.ts'
import type { Network } from '../../../processor/log/kafka/protocol/broker.ts'
import { METADATA_VERSION } from '../../../processor/log/kafka/protocol/metadata.ts'
import { Endpoint } from '../../../processor/runtime/health-server.ts'
import { parseOptions } from '../../../simulators/drill/options.ts'
import { KafkaClient } from '../../../simulators/drill/stage/kafka-client.ts'
import { metadataAnswer } from '../log/kafka/metadata-answer.ts'
import { scriptedBroker, versions } from '../log/kafka/scripted-broker.ts'

test.each([
  ['broker.example:9092', 'broker.example', 'broker.example:9092'],
  ['10.0.0.1:9092', '10.0.0.1', '10.0.0.1:9092'],
  ['[::1]:9092', '::1', '[::1]:9092'],
  ['::1:9092', '::1', '[::1]:9092'],
  ['[fe80::1%eth0]:9092', 'fe80::1%eth0', '[fe80::1%eth0]:9092'],
])('%s', (address, host, written) => {
  expect(hostAndPort(address)).toEqual({ host, port: 9092 })
  expect(addressOf(hostAndPort(address))).toBe(written)
})

test.each(['[::1]:9092', '::1:9092'])(
  'Kafka is found at %s, and is the broker that the cluster lists there',
  async (seed) => {
    const hosts: string[] = []
    const network = {
      closed: false,
      connect(host: string) {
        hosts.push(host)
        return Promise.resolve({ alive: true, send: () => Promise.resolve(metadataAnswer(['::1'])) })
      },
    } as unknown as Network
    const cluster = new KafkaCluster([seed], [], network, pino({ enabled: false }))
    await cluster.refresh()
    await cluster.refresh()
    expect(hosts).toEqual(['::1'])
  },
)

test('a drill finds MQTT at an address of IPv6', () => {
  expect(parseOptions(['kill', '--mqtt', '[::1]:1883'])).toMatchObject({ mqtt: { host: '::1', port: 1883 } })
})

const hasIpv6 = Object.values(networkInterfaces()).some((all) => all?.some(({ address }) => address === '::1'))

describe.skipIf(!hasIpv6)('where there is IPv6', () => {
  test('a process tells of its endpoint in brackets', async () => {
    const options = { host: '::1', port: 0, variable: 'QUERY_PORT', checks: async () => [] } as const
    await using endpoint = await Endpoint.open({
      ...options,
      registry: new Registry(),
      logger: pino({ enabled: false }),
    })
    expect(endpoint.address).toMatch(/^\[::1\]:\d+$/)
    expect((await fetch(`http://${endpoint.address}/livez`)).status).toBe(200)
  })

  test("the drill's own client finds Kafka there", async () => {
    const { server, address } = await scriptedBroker(versions(METADATA_VERSION), (socket) => socket.destroy(), '::1')
    try {
      await using kafka = await KafkaClient.open({ brokers: [address] })
      expect(kafka).toBeInstanceOf(KafkaClient)
    } finally {
      server.close()
    }
  })
})
