import { PassThrough } from 'node:stream'
import { pino } from 'pino'
import { Registry } from 'prom-client'
import { describe, expect, it, vi } from 'vitest'
import { Appender } from '../../../ingest/append/batcher.ts'
import { Connection } from '../../../ingest/connection/connection.ts'
import { Pressure } from '../../../ingest/connection/pressure.ts'
import { DEFAULT_LIMITS } from '../../../ingest/limits.ts'
import { IngestMetrics } from '../../../ingest/metrics.ts'
import { Presence } from '../../../ingest/mqtt/presence.ts'
import { Session } from '../../../ingest/mqtt/session.ts'
import { HeldLog, openIngest, pinged, RawClient, WAIT } from '../fixture.ts'

const ID = 'truck-17'
const TOPIC = `devices/${ID}/telemetry`

async function subscribed(port: number): Promise<RawClient> {
  const client = await RawClient.open(port, { clientId: ID })
  client.send({ cmd: 'subscribe', messageId: 1, subscriptions: [{ topic: `commands/${ID}`, qos: 1 }] })
  await vi.waitFor(() => expect(client.of('suback').length).toBe(1), WAIT)
  return client
}

describe('a takeover', () => {
  it('ends the session before, with its own epoch', async () => {
    const { ingest, log } = await openIngest()
    const first = await RawClient.open(ingest.port, { clientId: ID })
    first.publish(TOPIC, '1', 1, 1)
    await vi.waitFor(() => expect(first.ids('puback')).toEqual([1]), WAIT)
    const second = await RawClient.open(ingest.port, { clientId: ID })
    await first.end()
    await vi.waitFor(() => expect(log.story(ID)).toContain('offline: taken over'), WAIT)
    second.publish(TOPIC, '2', 1, 1)
    await vi.waitFor(() => expect(second.ids('puback')).toEqual([1]), WAIT)
    const connections = log.connections(ID)
    const ended = connections.find(({ state }) => state === 'offline')
    const [old, , fresh] = connections.filter(({ state }) => state === 'online')
    expect(ended?.session).toBe(old?.session)
    expect(Number(fresh?.session)).toBeGreaterThan(Number(old?.session))
    await pinged(second)
  })

  it('again and again ends each', async () => {
    const { ingest, log } = await openIngest()
    const clients: RawClient[] = []
    for (let i = 0; i < 10; i++) clients.push(new RawClient(ingest.port))
    await Promise.all(clients.map((client) => client.connect({ clientId: ID }).catch(() => undefined)))
    await vi.waitFor(() => expect(clients.filter(({ closed }) => !closed).length).toBe(1), WAIT)
    clients.find(({ closed }) => !closed)?.send({ cmd: 'disconnect' })
    await vi.waitFor(() => expect(log.story(ID)).toContain('offline: client disconnect'), WAIT)
    const sessions = (state: string) =>
      log
        .connections(ID)
        .filter((c) => c.state === state)
        .map(({ session }) => session)
    await vi.waitFor(() => expect(new Set(sessions('offline'))).toEqual(new Set(sessions('online'))), WAIT)
  })

  it('by two at once leaves one [MQTT-3.1.4-2]', async () => {
    const { ingest, metric } = await openIngest()
    const first = await subscribed(ingest.port)
    const others = [new RawClient(ingest.port), new RawClient(ingest.port)]
    await vi.waitFor(() => expect(others.map(({ socket }) => socket.connecting)).toEqual([false, false]), WAIT)
    for (const other of others) other.send({ cmd: 'connect', clientId: ID })
    await first.end()
    await vi.waitFor(async () => expect(await metric('connections')).toBe(1), WAIT)
    await vi.waitFor(() => expect(others.filter(({ closed }) => !closed).length).toBe(1), WAIT)
    const [last] = others.filter(({ closed }) => !closed)
    await pinged(last as RawClient)
    const next = await RawClient.open(ingest.port, { clientId: ID })
    await last?.end()
    await pinged(next)
  })

  it('by one that has ended before it is registered leaves nobody online', async () => {
    const log = new HeldLog()
    const metrics = new IngestMetrics(new Registry())
    const appender = new Appender(log, DEFAULT_LIMITS, metrics, pino({ level: 'silent' }))
    const presence = new Presence(appender, DEFAULT_LIMITS, metrics, Date.now)
    const session = new Session(
      1,
      ID,
      new Connection(new PassThrough(), new Pressure(DEFAULT_LIMITS, metrics)),
      metrics,
    )
    presence.spoke(session, ID)
    presence.end(session, 'offline', 'connection lost')
    // aedes registers a client, and so begins its session, only when the one it takes over has gone.
    presence.begin(session)
    // Of messages that were sent before the end.
    for (let messages = 1; messages < 16; messages++) presence.spoke(session, ID)
    await appender.settled()
    expect(log.story(ID)).toEqual(['online: connected', 'offline: connection lost'])
    expect(metrics.trackedDevices).toBe(0)
  })
})
