import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pino from 'pino'
import { Registry } from 'prom-client'
import { expect, it, onTestFinished, vi } from 'vitest'
import { RetryableError } from '../../../processor/contract/errors.ts'
import { Processor } from '../../../processor/processor.ts'
import { LevelStore } from '../../../processor/store/level-store.ts'
import { MemoryLog } from '../memory-log.ts'
import { RECEIVED, said } from '../workbench.ts'

const sleep = () => new Promise<void>((resolve) => setImmediate(resolve))

it('does not count a copy as warm that was away for longer than tombstones are kept, or for nobody knows how long', async () => {
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
    now = RECEIVED - log.deleteRetentionMs - 1
    expect(processor.positions()).toEqual(new Map([[0, 0]]))
  }
  await rm(folder, { recursive: true })
})

it('does not count a standby as warm whose store cannot be written', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'tidemark-positions-'))
  onTestFinished(() => rm(folder, { recursive: true }))
  const log = new MemoryLog()
  const claim = log.claim()
  const commit = (next: number) => claim.commit({ changelog: [said('a', { x: next })], deadLetters: [], next })
  await commit(1)
  const made = { folder, logger: pino({ enabled: false }), registry: new Registry(), now: () => RECEIVED }
  await using processor = await Processor.open({ log, instance: 'one', endpoint: 'one', ...made, sleep })
  const stopping = new AbortController()
  const done = processor.standby(0, stopping.signal, { heir: false, held: true, whole: () => {} })
  await vi.waitFor(() => expect(processor.positions()).toEqual(new Map([[0, 1]])))
  // A lack of space is waited for, however long.
  const cause = Object.assign(new Error('No space left on device'), { code: 'LEVEL_NO_SPACE' })
  const refused = new RetryableError('STORE_UNAVAILABLE', cause.message, cause)
  const refusing = vi.spyOn(LevelStore.prototype, 'commit').mockRejectedValue(refused)
  await commit(2)
  await vi.waitFor(() => expect(processor.positions()).toEqual(new Map([[0, 0]])))
  refusing.mockRestore()
  await vi.waitFor(() => expect(processor.positions()).toEqual(new Map([[0, 2]])))
  stopping.abort()
  await done
})
