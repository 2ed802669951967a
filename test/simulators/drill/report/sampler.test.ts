import { expect, test, vi } from 'vitest'
import { SendingWatch } from '../../../../simulators/drill/load/traffic.ts'
import { Recorder, type Sample } from '../../../../simulators/drill/report/journal.ts'
import { Sampler, type SamplerParts } from '../../../../simulators/drill/report/sampler.ts'
import type { ClusterView } from '../../../../simulators/drill/stage/stage.ts'

const BEHIND = 700
/** What is appended between two looks. */
const GROWTH = 1_000
const HOURS = 3_600

interface World {
  readonly view: Pick<ClusterView, 'ends' | 'committed'>
  readonly progress: (partition: number) => { readonly offset: number; readonly lag: number | undefined }
}

/** A log of two partitions that grows whenever somebody looks, and owners that are always as much behind. */
function growing(): World {
  let end = 10_000
  return {
    view: {
      ends: async () => [end, end],
      committed: async () => [0, 1].map(() => ({ input: end - BEHIND, changelogEnd: 0 })),
    },
    progress: () => ({ offset: (end += GROWTH) - BEHIND, lag: 0 }),
  }
}

const fleet = { ledger: { published: 0, count: 0 }, publishing: true, sent: 0, absences: [] }

async function sampled({ view, progress }: World, traffic: object = fleet, { seconds = 40, samples = 3 } = {}) {
  const recorder = new Recorder(Date.now())
  const sending = new SendingWatch()
  const parts = {
    stage: { view, partitions: 2 },
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

const lags = (samples: readonly Sample[]) => samples.map(({ lag }) => lag)

test.each([
  ['several times a second', { seconds: 40, samples: 3 }],
  ['every two seconds', { seconds: 4 * HOURS, samples: 1 }],
])('what owners are behind a log that grows is told, sampled %s', async (_, options) => {
  const { samples } = await sampled(growing(), fleet, options)
  expect(lags(samples)).toEqual(Array.from({ length: options.samples }, () => 2 * BEHIND))
})

test('a coordinator that forgot commits makes no lag', async () => {
  const { view, progress } = growing()
  const forgetful = { ...view, committed: async () => [undefined, { input: 5, changelogEnd: 0 }] }
  // Of the partition that is asked for first the log has grown once more.
  const { samples } = await sampled({ view: forgetful, progress })
  expect(lags(samples)).toEqual([2 * BEHIND + GROWTH, 2 * BEHIND + GROWTH, 2 * BEHIND + GROWTH])
})

test.each<[string, World]>([
  [
    'Kafka does not answer',
    { ...growing(), view: { committed: async () => [], ends: () => new Promise(() => undefined) } },
  ],
  [
    'an owner that alone could tell is not heard',
    {
      view: { committed: async () => [], ends: async () => undefined },
      progress: (partition) => ({ offset: 5, lag: partition === 0 ? 3 : undefined }),
    },
  ],
])('while %s the lag is not known, which is not none', async (_, world) => {
  expect(lags((await sampled(world)).samples)).toEqual([undefined, undefined, undefined])
})

test('where only owners can tell, the lag is what they tell', async () => {
  const view = { committed: async () => [], ends: async () => undefined }
  const { samples } = await sampled({ view, progress: () => ({ offset: 5, lag: 3 }) })
  expect(lags(samples)).toEqual([6, 6, 6])
})

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
