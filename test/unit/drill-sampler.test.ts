import { expect, test, vi } from 'vitest'
import type { Engine } from '../../simulators/drill/engine.ts'
import { Recorder } from '../../simulators/drill/journal.ts'
import { Sampler, type SamplerParts } from '../../simulators/drill/sampler.ts'
import { Sending } from '../../simulators/drill/sending.ts'

const BEHIND = 700
/** What is appended between two looks. */
const GROWTH = 1_000

interface World {
  readonly engine: Pick<Engine, 'ends' | 'committed'>
  readonly progress: (partition: number) => { readonly offset: number; readonly lag: number | undefined }
}

/** A log of two partitions that grows whenever somebody looks, and owners that are always as much behind. */
function growing(): World {
  let end = 10_000
  return {
    engine: {
      ends: async () => [end, end],
      committed: async () => [0, 1].map(() => ({ input: end - BEHIND, changelogEnd: 0 })),
    },
    progress: () => ({ offset: (end += GROWTH) - BEHIND, lag: 0 }),
  }
}

const fleet = { ledger: { published: 0, count: 0 }, publishing: true, sent: 0, absences: [] }

async function sampled({ engine, progress }: World, traffic: object = fleet, { seconds = 40, samples = 3 } = {}) {
  const recorder = new Recorder(Date.now())
  const sending = new Sending()
  const parts = {
    engine: { ...engine, stage: { partitions: 2 } },
    observer: { progress },
    readers: { sample: () => ({ staleMs: 0, reads: 0, failures: 0 }) },
    recorder,
    traffic,
    sending,
    seconds,
  } as unknown as SamplerParts
  const ending = new AbortController()
  const running = new Sampler(parts).run(ending.signal)
  await vi.waitFor(() => expect(recorder.samples.length).toBeGreaterThanOrEqual(samples), { timeout: 20_000 })
  ending.abort()
  await running
  return { samples: recorder.samples.slice(0, samples), sending: sending.report }
}

test('what visitors send is none of what the fleet is to send', async () => {
  let published = 0
  const traffic = {
    ...fleet,
    get ledger() {
      return { published: (published += 100), count: 0 }
    },
  }
  const { samples, sending } = await sampled(growing(), traffic)
  expect(samples[0]?.sent).toBeGreaterThan(0)
  expect(sending).toMatchObject({ ms: expect.any(Number), sent: 0 })
  expect(sending.ms).toBeGreaterThan(0)
})
