import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pino from 'pino'
import { Registry } from 'prom-client'
import { expect, it, vi } from 'vitest'
import { Processor } from '../../processor/processor.ts'
import { MemoryLog } from './memory-log.ts'
import { RECEIVED, said } from './workbench.ts'

it('does not count a copy as warm that was away for longer than tombstones are kept, but before none', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'tidemark-positions-'))
  const log = new MemoryLog()
  await log.append('telemetry', [said('a', { x: 1 }), said('b', { x: 1 })])
  let now = RECEIVED
  const made = { folder, logger: pino({ enabled: false }), registry: new Registry(), now: () => now }
  {
    await using processor = await Processor.open({ log, instance: 'one', endpoint: 'one', ...made })
    expect(processor.positions()).toEqual(new Map())
    const stopping = new AbortController()
    const done = processor.active(log.claim(), stopping.signal)
    await vi.waitFor(() => expect(processor.positions()).toEqual(new Map([[0, 2]])))
    stopping.abort()
    await done
    now += log.deleteRetentionMs
    expect(processor.positions()).toEqual(new Map([[0, 2]]))
    now += 1
    expect(processor.positions()).toEqual(new Map([[0, 0]]))
  }
  await rm(folder, { recursive: true })
})
