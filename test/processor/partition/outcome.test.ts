import { expect, it, vi } from 'vitest'
import { MAX_STATUS_BYTES } from '../../../processor/contract/status.ts'
import { writeRecord } from '../../../processor/contract/write.ts'
import { MemoryLog } from '../memory-log.ts'
import { RECEIVED, said, Workbench } from '../workbench.ts'

it('what came of a write is known as soon as the store is past it', async () => {
  const log = new MemoryLog()
  await using bench = await Workbench.open(log)
  const store = await bench.store()
  const commit = store.commit.bind(store)
  const outcomes: unknown[] = []
  store.commit = async (...of) => {
    await commit(...of)
    if (store.checkpoint?.input !== 1) return
    outcomes.push((await bench.reader.getPast({ partition: 0, offset: 0 }, 'a', 0)).outcome)
  }
  await bench.task(log.claim(), store)
  const attributes = { kind: 'attributes', operation: 'replace', attributes: { site: 'k1' } } as const
  await log.write(writeRecord('a', { ...attributes, ifMatch: undefined }, RECEIVED))
  await vi.waitFor(() => expect(outcomes).toHaveLength(1))
  expect(outcomes).toEqual(['unknown-device'])
})

it('of messages that made a status too large nothing is left but the dead letters', async () => {
  const log = new MemoryLog()
  await using bench = await Workbench.open(log)
  await bench.task()
  const third = 'x'.repeat(MAX_STATUS_BYTES / 3)
  await log.append('telemetry', [said('a', { x: third }), said('a', { y: third })])
  await bench.settled()
  const there = log.records('status').length
  await log.append('telemetry', [said('a', { z: third })])
  await bench.settled()
  expect(log.records('dead-letters').map(({ headers }) => headers?.reason)).toEqual(['status-too-large'])
  expect(log.records('status')).toHaveLength(there)
})
