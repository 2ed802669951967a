import { PassThrough } from 'node:stream'
import { pino } from 'pino'
import { Registry } from 'prom-client'
import { expect, it, vi } from 'vitest'
import { Gather } from '../../../ingest/append/batcher.ts'
import { Connection } from '../../../ingest/connection/connection.ts'
import { Pressure } from '../../../ingest/connection/pressure.ts'
import { DEFAULT_LIMITS } from '../../../ingest/limits.ts'
import { Counts } from '../../../ingest/metrics.ts'
import { Presence } from '../../../ingest/mqtt/presence.ts'
import { Session } from '../../../ingest/mqtt/session.ts'
import { HeldLog, turns } from '../fixture.ts'

it('a gateway whose partitions cannot be written ends for so many devices in one turn of the event loop', async () => {
  const log = new HeldLog()
  const counts = new Counts(new Registry())
  const gather = new Gather(log, DEFAULT_LIMITS, counts, pino({ level: 'silent' }))
  const presence = new Presence(gather, DEFAULT_LIMITS, counts, Date.now)
  const gateway = new Session(1, '', new Connection(new PassThrough(), new Pressure(DEFAULT_LIMITS, counts)), counts)
  for (let i = 0; i < 3_000; i++) presence.spoke(gateway, `sensor-${i}`)
  await gather.settled()
  log.fault = new Error('down')
  const looked = vi.spyOn(log, 'faultAt')
  presence.end(gateway, 'offline', 'connection lost')
  expect(looked).toHaveBeenCalledTimes(500)
  await turns()
  expect(looked).toHaveBeenCalledTimes(3_000)
  expect(presence.stop()).toBe(3_000)
})
