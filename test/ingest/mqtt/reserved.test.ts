import { expect, it, vi } from 'vitest'
import { deliveries, openIngest, pinged, publication, RawClient, subscribe, WAIT } from '../fixture.ts'

const STATE = '$SYS/broker/connection/edge.tidemark/state'
const TOPIC = 'devices/truck-17/telemetry'

it("a Mosquitto bridge works: its notices, and the will for its last, are dead letters, and neither kept nor anybody's", async () => {
  const { ingest, log, metric } = await openIngest({ maxRetained: 1 })
  const witness = await RawClient.open(ingest.port)
  await subscribe(witness, { '#': 1 })
  const notice = { topic: STATE, qos: 1, retain: true } as const
  // The top bit of its protocol level says so; the types leave it out.
  const asBridge: object = { bridgeMode: true }
  const bridge = await RawClient.open(ingest.port, {
    clientId: 'edge.tidemark',
    clean: false,
    ...asBridge,
    will: { ...notice, payload: Buffer.from('0') },
  })
  bridge.publish(STATE, '1', 1, 1, { retain: true })
  await subscribe(bridge, { 'cmd/#': 1 })
  bridge.publish(TOPIC, '{"t":1}', 1, 2)
  await vi.waitFor(() => expect(bridge.ids('puback')).toEqual([1, 2]), WAIT)
  bridge.socket.destroy()
  await vi.waitFor(() => expect(log.letters().length).toBe(2), WAIT)
  expect(log.letters().map(({ value, headers }) => [String(value), headers?.reason, headers?.topic])).toEqual([
    ['1', 'reserved-topic', STATE],
    ['0', 'reserved-topic', STATE],
  ])
  expect(await metric('dead_letters_total', { reason: 'reserved-topic' })).toBe(2)
  expect(log.messages()).toEqual([['truck-17', '{"t":1}']])
  witness.publish('home/a', 'kept', 1, 1, { retain: true })
  await vi.waitFor(() => expect(deliveries(witness).length).toBe(2), WAIT)
  expect(deliveries(witness).map(([payload]) => payload)).toEqual(['{"t":1}', 'kept'])
  expect(await metric('bound_hits_total', { bound: 'retained' })).toBe(0)
})

it("a reserved filter is refused: nothing comes there, and what the broker notes of its clients is nobody else's", async () => {
  const { ingest } = await openIngest()
  for (const clean of [true, false]) {
    const client = await RawClient.open(ingest.port, { clientId: 'x', clean })
    await subscribe(client, { '$SYS/#': 1, '$share/group/home/#': 1, 'home/#': 1 }, [128, 128, 1])
    await RawClient.open(ingest.port)
    const publisher = await RawClient.open(ingest.port)
    publisher.write(Buffer.concat([publication('$SYS/x', '1'), publication('home/a', '2')]))
    await vi.waitFor(() => expect(deliveries(client).length).toBeGreaterThan(0), WAIT)
    await pinged(client)
    expect(deliveries(client)).toEqual([['2', 0, false]])
  }
})
