import { describe, expect, it, vi } from 'vitest'
import { HeldLog, openIngest, pinged, publication, RawClient, turns, WAIT } from '../fixture.ts'

/** The first of `truck-1`, `truck-2`… in, or not in, a partition. */
function truck(log: HeldLog, partition: number, there = true): string {
  for (let n = 1; ; n++) if ((log.partition(`truck-${n}`) === partition) === there) return `truck-${n}`
}

function topic(deviceId: string): string {
  return `devices/${deviceId}/telemetry`
}

describe('a partition that cannot be written', () => {
  it('keeps only its own devices waiting, closes and refuses only them', async () => {
    const { ingest, log } = await openIngest({ appendDeadlineMs: 100 })
    const [stuck, well] = [truck(log, 0), truck(log, 0, false)]
    const unlucky = await RawClient.open(ingest.port, { clientId: stuck })
    const lucky = await RawClient.open(ingest.port, { clientId: well })
    await vi.waitFor(() => expect(log.connections().length).toBe(2), WAIT)
    log.stuck.add(0)
    unlucky.publish(topic(stuck), '1', 1, 1)
    for (let id = 1; !unlucky.closed; id++) {
      lucky.publish(topic(well), String(id), 1, id)
      await vi.waitFor(() => expect(lucky.ids('puback')).toContain(id), WAIT)
    }
    expect(unlucky.of('puback')).toEqual([])
    expect((await new RawClient(ingest.port).connect({ clientId: stuck })).returnCode).toBe(3)
    expect((await new RawClient(ingest.port).connect({ clientId: 'gateway/of/many' })).returnCode).toBe(0)
    await pinged(lucky)
    log.stuck.clear()
    log.release()
    await turns()
    const again = await RawClient.open(ingest.port, { clientId: stuck })
    again.publish(topic(stuck), '1', 1, 1)
    await vi.waitFor(() => expect(again.ids('puback')).toEqual([1]), WAIT)
  })

  it('refuses its devices when the log itself says so', async () => {
    const { ingest, log } = await openIngest()
    log.faults.set(0, new Error('no leader'))
    const [stuck, well] = [truck(log, 0), truck(log, 0, false)]
    expect((await new RawClient(ingest.port).connect({ clientId: stuck })).returnCode).toBe(3)
    expect((await new RawClient(ingest.port).connect({ clientId: well })).returnCode).toBe(0)
  })

  it('keeps the ends of other sessions from nothing, and has its own said when it is back', async () => {
    const { ingest, log, metric } = await openIngest({ appendDeadlineMs: 100 })
    const [stuck, well] = [truck(log, 0), truck(log, 0, false)]
    const clients = await Promise.all(
      [stuck, well].map(async (clientId) => {
        const client = await RawClient.open(ingest.port, { clientId })
        client.publish(topic(clientId), '1', 1, 1)
        // Nothing of the message is to be stuck: its end is what is given up then.
        await vi.waitFor(() => expect(client.ids('puback')).toEqual([1]), WAIT)
        return client
      }),
    )
    log.stuck.add(0)
    clients[0]?.socket.destroy()
    // Its end was given up once, and is postponed. Asked before, a CONNECT of its own would be accepted, and be its session.
    await vi.waitFor(async () => expect(await metric('failed_appends_total')).toBeGreaterThan(0), WAIT)
    expect((await new RawClient(ingest.port).connect({ clientId: stuck })).returnCode).toBe(3)
    clients[1]?.socket.destroy()
    await vi.waitFor(() => expect(log.story(well).at(-1)).toBe('offline: connection lost'), WAIT)
    log.stuck.clear()
    for (const append of log.appends.splice(0)) append.reject(new Error('no leader'))
    await vi.waitFor(() => expect(log.story(stuck).at(-1)).toBe('offline: connection lost'), WAIT)
  })
})

describe('a gateway', () => {
  it('holds no bytes of what the log has, whatever its acks wait for', async () => {
    const { ingest, log, metric } = await openIngest()
    const client = await RawClient.open(ingest.port)
    const [stuck, well] = [truck(log, 0), truck(log, 0, false)]
    log.stuck.add(0)
    const first = publication(topic(stuck), '1', 1, 1)
    const others = Array.from({ length: 50 }, (_, i) => publication(topic(well), 'x'.repeat(1_000), 1, i + 2))
    client.write(Buffer.concat([first, ...others]))
    await vi.waitFor(() => expect(log.messages().length).toBe(50), WAIT)
    await turns()
    expect(client.ids('puback')).toEqual([])
    expect(await metric('held_messages')).toBe(1)
    expect(await metric('held_bytes')).toBeLessThan(100)
    log.release()
    await vi.waitFor(() => expect(client.ids('puback').length).toBe(51), WAIT)
  })

  it('has its acks in the order of receipt, whichever partition is the slow one', async () => {
    const { ingest, log } = await openIngest()
    const client = await RawClient.open(ingest.port)
    const devices = [0, 1, 2, 3].map((partition) => truck(log, partition))
    log.stuck.add(0)
    const ids = Array.from({ length: 100 }, (_, i) => i + 1)
    // Every fifth by the slow path of the broker, as are those of QoS 2.
    const sent = ids.map((id) =>
      publication(topic(devices[id % 4] as string), String(id), id % 7 === 0 ? 2 : 1, id, { retain: id % 5 === 0 }),
    )
    client.write(Buffer.concat(sent))
    await vi.waitFor(() => expect(log.messages().length).toBe(75), WAIT)
    await vi.waitFor(() => expect(client.ids('puback').length).toBeGreaterThanOrEqual(3), WAIT)
    await turns()
    expect(client.ids('puback')).toEqual([1, 2, 3])
    expect(client.ids('pubrec')).toEqual([])
    log.stuck.clear()
    log.release()
    // [MQTT-4.6.0-2] and [MQTT-4.6.0-3] say so of each kind.
    await vi.waitFor(() => expect(client.ids('puback')).toEqual(ids.filter((id) => id % 7 !== 0)), WAIT)
    await vi.waitFor(() => expect(client.ids('pubrec')).toEqual(ids.filter((id) => id % 7 === 0)), WAIT)
    expect(log.messages().length).toBe(100)
  })
})
