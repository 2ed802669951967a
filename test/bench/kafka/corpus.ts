import type { Cluster } from '../../../simulators/cluster.ts'
import { corpus, SHAPES } from '../corpus.ts'
import type { Figure } from '../figure.ts'
import { PREFIX } from '../ingest.ts'
import { measureProcessing } from './processing.ts'

export interface CorpusSizes {
  readonly records: number
  readonly devices: number
  readonly threads: readonly number[]
}

/** Folds the records of each shape, as Kafka Streams does; of all shapes the worst and the median count. */
export async function measureCorpus(
  brokers: string,
  partitions: number,
  open: () => Promise<Cluster>,
  { records, devices, threads }: CorpusSizes,
): Promise<Figure[]> {
  const all: Figure[] = []
  const ratios: { readonly shape: string; readonly ratio: number; readonly cpuMicros: number }[] = []
  for (const [shape, { scale = 1 }] of Object.entries(SHAPES)) {
    await using cluster = await open()
    const count = records / scale
    const load = () => corpus(shape, count, devices / scale, PREFIX)
    const sizes = { load: shape, records: load, count, atLeast: 2, threads }
    const { figures, ratio, cpuMicros } = await measureProcessing(brokers, cluster, partitions, sizes)
    all.push(...figures)
    ratios.push({ shape, ratio, cpuMicros })
    await cluster.stop()
  }
  const sorted = ratios.toSorted((a, b) => a.ratio - b.ratio)
  const worst = sorted[0]
  const median = sorted[Math.floor(sorted.length / 2)]
  if (worst === undefined || median === undefined) throw new Error('the corpus is empty')
  return [
    ...all,
    { what: 'processing: the worst shape', value: worst.ratio, unit: 'x Kafka Streams', note: worst.shape },
    { what: 'processing: the median shape', value: median.ratio, unit: 'x Kafka Streams', note: median.shape },
  ]
}
