import { setImmediate as turn } from 'node:timers/promises'
import { Registry } from 'prom-client'
import { expect, it } from 'vitest'
import { Pressure } from '../../../ingest/connection/pressure.ts'
import { DEFAULT_LIMITS } from '../../../ingest/limits.ts'
import { IngestMetrics } from '../../../ingest/metrics.ts'

it('takes a bounded number of messages in one turn of the event loop, and connections go on in their turn', async () => {
  const metrics = new IngestMetrics(new Registry())
  const pressure = new Pressure(DEFAULT_LIMITS, metrics)
  const took: string[] = []
  const connection = (name: string) => ({
    proceed() {
      let messages = 0
      while (!pressure.full) {
        pressure.spend(1)
        pressure.take(1)
        messages++
      }
      pressure.wait(this)
      if (messages > 0) took.push(name)
    },
  })
  for (const name of ['a', 'b', 'c']) connection(name).proceed()
  const perTurn = metrics.held
  expect(perTurn).toBeGreaterThan(0)
  expect(took).toEqual(['a'])
  while (took.length < 6) await turn()
  expect(metrics.held).toBe(6 * perTurn)
  // In the order of waiting: the first waited first, having used up the first turn.
  expect(took).toEqual(['a', 'a', 'b', 'c', 'a', 'b'])
  expect([...metrics.boundHits.entries()].filter(([, times]) => times > 0)).toEqual([])
})

it('lets those who need no bytes go on while others wait for bytes, and these when there are some', async () => {
  const metrics = new IngestMetrics(new Registry())
  const pressure = new Pressure({ ...DEFAULT_LIMITS, maxHeldBytes: 10 }, metrics)
  const went: string[] = []
  const publisher = { proceed: () => void went.push('publisher') }
  const pinger = { proceed: () => void went.push('pinger') }
  pressure.take(10)
  expect(pressure.full).toBe(true)
  expect(pressure.busy).toBe(false)
  pressure.wait(publisher)
  pressure.spend(2_000)
  pressure.wait(pinger)
  while (pressure.busy) await turn()
  expect(went).toEqual(['pinger'])
  pressure.release(1, 10)
  expect(went).toEqual(['pinger', 'publisher'])
  expect([...metrics.boundHits.entries()].filter(([, count]) => count > 0)).toEqual([['held bytes', 1]])
})
