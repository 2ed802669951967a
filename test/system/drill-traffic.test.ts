import { expect, test, vi } from 'vitest'
import { Traffic } from '../../simulators/drill/load/traffic.ts'
import { Ledger } from '../../simulators/load/ledger.ts'
import { RecordingBroker } from './broker.ts'

test('what the fleet of a drill sent is told apart from what others count in its ledger', async () => {
  const [devices, others] = [2, 50]
  await using broker = await RecordingBroker.open()
  const ledger = new Ledger(devices + 1)
  const options = { host: '127.0.0.1', port: broker.port, prefix: 'drill', devices, ledger, rate: 500, seed: 1 }
  const { signal } = new AbortController()
  await using traffic = await Traffic.open({ ...options, hot: undefined, partitions: 4 }, signal)
  for (let i = 0; i < others; i++) ledger.next(devices)
  expect(traffic.sent).toBe(0)
  traffic.start()
  await vi.waitFor(() => expect(traffic.sent).toBeGreaterThan(20), { timeout: 10_000 })
  await traffic.stop(10_000)
  expect(traffic.sent).toBe(broker.received.length)
  expect(ledger.published).toBe(traffic.sent + others)
})
