import { expect, it } from 'vitest'
import { parseQuery } from '../../../processor/search/language/parser.ts'
import { MemoryLog } from '../memory-log.ts'
import { said, Workbench } from '../workbench.ts'

it('lists no more at once than about a MiB of statuses', async () => {
  const log = new MemoryLog()
  await using bench = await Workbench.open(log)
  const ids = Array.from({ length: 30 }, (_, i) => `device-${i + 10}`)
  await log.append(
    'telemetry',
    ids.map((id) => said(id, { x: '-'.repeat(100_000) })),
  )
  await bench.task()
  await bench.settled()
  const found: string[] = []
  for (let after: string | undefined; ; after = found.at(-1)) {
    const { items } = await bench.reader.list(0, after, 200)
    if (items.length === 0) break
    expect(items.reduce((sum, { status }) => sum + status.byteLength, 0)).toBeLessThan(1024 * 1024 + 101_000)
    found.push(...items.map(({ deviceId }) => deviceId))
  }
  expect(found).toEqual(ids)
})

it('counts, in a slice that goes on after a device, those that come after it', async () => {
  const log = new MemoryLog()
  await using bench = await Workbench.open(log)
  await log.append('telemetry', [said('a', { x: 1 }), said('b', { x: 1 }), said('c', { x: 1 })])
  await bench.task()
  await bench.settled()
  const all = { partition: 0, query: parseQuery(''), within: undefined, by: [], metrics: [] }
  expect((await bench.reader.summarize({ ...all, from: undefined })).summary.devices).toBe(3)
  expect((await bench.reader.summarize({ ...all, from: 'a' })).summary).toMatchObject({
    devices: 2,
    groups: [{ count: 2 }],
  })
})
