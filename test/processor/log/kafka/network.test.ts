import { once } from 'node:events'
import type { Socket } from 'node:net'
import pino from 'pino'
import { Registry } from 'prom-client'
import { expect, test, vi } from 'vitest'
import { KafkaLog } from '../../../../processor/log/kafka/kafka-log.ts'
import { Network } from '../../../../processor/log/kafka/protocol/broker.ts'
import { WireWriter } from '../../../../processor/log/kafka/protocol/wire.ts'
import { scriptedBroker, versions } from './scripted-broker.ts'

/** CLUSTER_AUTHORIZATION_FAILED */
const REFUSED = 31

const refusal = new WireWriter().int16(REFUSED).int32(0).int32(0).finish()

test('a connection that a broker refuses leaves neither its socket nor its timer behind', async () => {
  const started = vi.spyOn(globalThis, 'setInterval')
  const ended = vi.spyOn(globalThis, 'clearInterval')
  const { server, host, port } = await scriptedBroker(refusal, (socket) => socket.destroy())
  const network = new Network('test', {}, pino({ enabled: false }))
  try {
    const accepted = once(server, 'connection') as Promise<[Socket]>
    const connecting = network.connect(host, port)
    await expect(connecting).rejects.toMatchObject({ type: 'CLUSTER_AUTHORIZATION_FAILED' })
    const [socket] = await accepted
    await vi.waitFor(() => expect(socket.readableEnded || socket.destroyed).toBe(true))
    const intervals = started.mock.results.map(({ value }) => value as NodeJS.Timeout)
    const cleared = ended.mock.calls.map(([timer]) => timer)
    expect(intervals.length).toBeGreaterThan(0)
    expect(intervals.filter((interval) => !cleared.includes(interval))).toEqual([])
  } finally {
    vi.restoreAllMocks()
    network.close()
    server.close()
  }
})

test('a broker that is too old is refused by name, and not waited for', async () => {
  const { server, address } = await scriptedBroker(versions(11), (socket) => socket.destroy())
  try {
    const opening = KafkaLog.open({
      brokers: [address],
      prefix: 'test',
      group: 'test',
      partitions: 1,
      logger: pino({ enabled: false }),
      registry: new Registry(),
    })
    await expect(opening).rejects.toMatchObject({
      code: 'LOG_MISMATCH',
      message: `the broker at ${address} cannot be used: Metadata 12 is needed, and it has 0 to 11; use Kafka 3.6 or newer`,
    })
  } finally {
    server.close()
  }
})
