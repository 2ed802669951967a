import type { NewRecord } from '../../../processor/contract/record.ts'
import { pause } from '../../../processor/runtime/pause.ts'
import type { Cluster } from '../../../simulators/cluster.ts'
import type { Program } from '../../../simulators/program.ts'
import type { Figure } from '../figure.ts'
import { usage } from '../machine.ts'
import { Committed } from './committed.ts'
import { fill } from './fill.ts'
import { expectSameOutcome } from './outcome.ts'
import { Streams } from './streams.ts'

const COMMITTED_WITHIN_MS = 300_000
const LINES_WITHIN_MS = 120_000
const POLL_MS = 20

export interface ProcessingSizes {
  /** How the load is called, and its records, from the first on. */
  readonly load: string
  readonly records: () => Iterator<NewRecord>
  readonly count: number
  /** The limit, as a multiple of the peer. */
  readonly atLeast: number
  /** Of the peer: the best counts. */
  readonly threads: readonly number[]
  /** Limit of the processor's memory, when there is one. */
  readonly residentMiB?: number
}

/** Fills the cluster's topic, and has the peer fold it first, then a processor, each as a group that is new. */
export async function measureProcessing(
  brokers: string,
  cluster: Cluster,
  partitions: number,
  sizes: ProcessingSizes,
): Promise<{ figures: Figure[]; processor: Program; application: string; ratio: number; cpuMicros: number }> {
  const { load, count, atLeast, threads, residentMiB } = sizes
  await fillTopic(cluster, sizes.records())
  const peers: Awaited<ReturnType<typeof peer>>[] = []
  for (const number of threads) peers.push(await peer(brokers, cluster, number))
  const best = peers.toSorted((a, b) => b.perSecond - a.perSecond)[0]
  if (best === undefined) throw new Error('no thread count to try the peer with')
  const product = await processAll(brokers, cluster, partitions, count)
  await expectSameOutcome(brokers, `${cluster.prefix}.status`, `${best.application}-status-changelog`)
  const name = `processing: ${load}, ${count.toLocaleString('en-US')} records`
  const others = peers.filter((one) => one !== best)
  const tried = others.map((one) => `with ${one.threads}: ${Math.round(one.perSecond).toLocaleString('en-US')}`)
  const figures: Figure[] = [
    {
      what: name,
      value: product.perSecond,
      unit: 'records/s',
      limit: { atLeast: atLeast * best.perSecond },
      peer: { what: `Kafka Streams, ${best.threads} threads`, value: best.perSecond },
      note: tried.join(', '),
    },
    {
      what: `${name}, resident memory then`,
      value: product.residentMiB,
      unit: 'MiB',
      ...(residentMiB === undefined ? {} : { limit: { atMost: residentMiB } }),
      peer: { what: 'Kafka Streams', value: best.residentMiB },
      note: `peak ${Math.round(product.peakMiB)} MiB, ${product.cpuMicros.toFixed(1)} µs of processor time a record`,
    },
  ]
  const { processor, cpuMicros } = product
  return { figures, processor, application: best.application, ratio: product.perSecond / best.perSecond, cpuMicros }
}

export async function fillTopic(cluster: Cluster, records: Iterator<NewRecord>): Promise<void> {
  await using log = await cluster.log()
  await fill(log, records)
}

async function peer(brokers: string, cluster: Cluster, threads: number) {
  const application = `${cluster.prefix}-streams-${threads}`
  const topic = `${cluster.prefix}.telemetry`
  await using streams = await Streams.start({ brokers, application, topic, threads })
  const committed = await streams.event(({ event }) => event === 'committed')
  const first = await streams.event(({ event }) => event === 'first')
  const residentMiB = usage(streams.pid)?.residentMiB ?? Number.NaN
  const perSecond = ((committed.records ?? 0) / (committed.at - first.at)) * 1000
  return { application, threads, perSecond, residentMiB }
}

/** Has one new processor fold all; the clock runs from when its first partition begins to read. */
export async function processAll(brokers: string, cluster: Cluster, partitions: number, records: number) {
  using committed = new Committed(brokers, cluster.prefix, `${cluster.prefix}.telemetry`, partitions)
  const [processor, end] = await Promise.all([
    cluster.processor('first'),
    committed.until(records, COMMITTED_WITHIN_MS),
  ])
  const began = firstLine(processor, 'partition running')
  const used = usage(processor.child.pid as number)
  return {
    processor,
    perSecond: (records / (end - began)) * 1000,
    residentMiB: used?.residentMiB ?? Number.NaN,
    peakMiB: used?.peakMiB ?? Number.NaN,
    cpuMicros: ((used?.cpuSeconds ?? Number.NaN) / records) * 1e6,
  }
}

/** Epoch ms of the first log line with this message. Throws when there is none. */
export function firstLine(program: Program, message: string): number {
  const [first] = times(program, message)
  if (first !== undefined) return first
  throw new Error(`the process has not logged ${JSON.stringify(message)}: ${program.stderr.slice(-2_000)}`)
}

/** Epoch ms of the log line with this message that is number `count`, now or soon. */
export async function untilLine(program: Program, message: string, count: number): Promise<number> {
  const deadline = performance.now() + LINES_WITHIN_MS
  for (;;) {
    const found = times(program, message)[count - 1]
    if (found !== undefined) return found
    if (performance.now() > deadline) {
      throw new Error(`the process has not logged ${message} ${count} times: ${program.stderr.slice(-2_000)}`)
    }
    await pause(POLL_MS)
  }
}

function times(program: Program, message: string): number[] {
  return program.stderr.split('\n').flatMap((line) => {
    if (!line.endsWith('}') || !line.includes(message)) return []
    const { msg, time } = JSON.parse(line) as { msg: string; time: number }
    return msg === message ? [time] : []
  })
}
