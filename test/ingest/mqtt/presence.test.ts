import { PassThrough } from 'node:stream'
import { pino } from 'pino'
import { Registry } from 'prom-client'
import { expect, it, vi } from 'vitest'
import { Appender } from '../../../ingest/append/batcher.ts'
import { Connection } from '../../../ingest/connection/connection.ts'
import { Pressure } from '../../../ingest/connection/pressure.ts'
import { DEFAULT_LIMITS } from '../../../ingest/limits.ts'
import { IngestMetrics } from '../../../ingest/metrics.ts'
import { Presence } from '../../../ingest/mqtt/presence.ts'
import { Session } from '../../../ingest/mqtt/session.ts'
import { HeldLog, turns } from '../fixture.ts'

it('a gateway whose partitions cannot be written ends for so many devices in one turn of the event loop', async () => {
  const log = new HeldLog()
  const metrics = new IngestMetrics(new Registry())
  const appender = new Appender(log, DEFAULT_LIMITS, metrics, pino({ level: 'silent' }))
  const presence = new Presence(appender, DEFAULT_LIMITS, metrics, Date.now)
  const gateway = new Session(1, '', new Connection(new PassThrough(), new Pressure(DEFAULT_LIMITS, metrics)), metrics)
  for (let i = 0; i < 3_000; i++) presence.spoke(gateway, `sensor-${i}`)
  await appender.settled()
  log.fault = new Error('down')
  const looked = vi.spyOn(log, 'faultAt')
  presence.end(gateway, 'offline', 'connection lost')
  expect(looked).toHaveBeenCalledTimes(500)
  await turns()
  expect(looked).toHaveBeenCalledTimes(3_000)
  expect(presence.stop()).toBe(3_000)
})
