import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { pause } from '../../../processor/runtime/pause.ts'
import type { Cluster } from '../../../simulators/cluster.ts'
import type { Program } from '../../../simulators/program.ts'
import { type Figure, percentiles } from '../figure.ts'
import { Committed } from './committed.ts'
import { loadRecords } from './fill.ts'
import { fillTopic, firstLine } from './processing.ts'
import { SteadyReads, SteadyRecords } from './steady.ts'
import { Streams } from './streams.ts'
import { Writers } from './writers.ts'

const RECORDS_PER_SECOND = 2_000
const READS_PER_SECOND = 200
const SETTLED_WITHIN_MS = 60_000
const POLL_MS = 20
const PEER_SESSION_MS = 6_000
const PEER_WARM_MS = 5_000

export interface MovingSizes {
  readonly devices: number
  readonly repetitions: number
  /** Of the peer, whose session timeout has to pass each time. */
  readonly peerRepetitions: number
}

/** Two processors that share the partitions, and what befalls one of them, beside steady records and reads. */
export async function measureMoving(
  brokers: string,
  cluster: Cluster,
  partitions: number,
  sizes: MovingSizes,
): Promise<Figure[]> {
  const fleet = { devices: sizes.devices }
  await fillTopic(cluster, loadRecords(sizes.devices, sizes))
  await using pair = await Pair.start(brokers, cluster, partitions)
  const handOver: number[] = []
  const killed: number[] = []
  const back: number[] = []
  const joined: number[] = []
  const stood: number[] = []
  using committed = new Committed(brokers, cluster.prefix, `${cluster.prefix}.telemetry`, partitions)
  await committed.until(sizes.devices, SETTLED_WITHIN_MS)
  await using _records = new SteadyRecords(await cluster.log(), fleet, sizes.devices, RECORDS_PER_SECOND)
  await using reads = new SteadyReads(cluster, fleet, READS_PER_SECOND)
  for (let i = 0; i < sizes.repetitions * 2; i++) {
    const victim = i % 4 < 2 ? 'a' : 'b'
    if (i % 2 === 0) handOver.push(...(await pair.end(victim, 'SIGTERM')))
    else killed.push(...(await pair.end(victim, 'SIGKILL')))
    back.push((await pair.join(victim)).ms)
  }
  for (let i = 0; i < sizes.repetitions / 2; i++) {
    await pair.end('b', 'SIGTERM')
    await rm(join(cluster.dataDir, 'b'), { recursive: true })
    const { ms, stood: still } = await pair.join('b')
    joined.push(ms)
    stood.push(...still)
  }
  await reads[Symbol.asyncDispose]()
  const { failures, latencies } = reads
  await pair[Symbol.asyncDispose]()
  const peer: number[] = []
  for (let i = 0; i < sizes.peerRepetitions; i++) {
    const application = `${cluster.prefix}-streams-${i}`
    peer.push(await killStreams({ brokers, application, topic: `${cluster.prefix}.telemetry`, partitions }))
  }
  return [
    figure('SIGTERM to the first commit by the new owner', handOver, 300),
    {
      ...figure('kill -9 to the first commit by the new owner', killed, 500),
      peer: { what: `Kafka Streams, ${PEER_SESSION_MS / 1000} s session`, value: percentiles(peer).p50 },
    },
    figure('a processor that was away joins, to its whole share', back, 1_000),
    figure('a processor without a store joins, to its whole share', joined, 1_000),
    figure('the same, a partition without a commit meanwhile', stood),
    {
      what: 'moving: failed reads in all of this',
      value: failures.length,
      unit: `of ${latencies.length.toLocaleString('en-US')}`,
      limit: { atMost: 0 },
      note: `longest ${Math.max(...latencies).toFixed(0)} ms${failures[0] === undefined ? '' : `; first: ${failures[0]}`}`,
    },
  ]
}

/** Two processors, a and b. */
class Pair {
  readonly #cluster: Cluster
  readonly #partitions: number
  readonly #writers: Writers
  readonly #programs = new Map<string, Program>()

  private constructor(cluster: Cluster, partitions: number, writers: Writers) {
    this.#cluster = cluster
    this.#partitions = partitions
    this.#writers = writers
  }

  static async start(brokers: string, cluster: Cluster, partitions: number): Promise<Pair> {
    const pair = new Pair(cluster, partitions, await Writers.open(brokers, `${cluster.prefix}.status`, partitions))
    for (const name of ['a', 'b']) pair.#programs.set(name, await cluster.processor(name))
    pair.#programs.set('api', await cluster.api())
    await pair.#settled('a')
    await pair.#writers.shared(partitions)
    return pair
  }

  /** Sends the signal; ms from it to the first commit by the new owner, of each partition that moves. */
  async end(name: string, signal: NodeJS.Signals): Promise<number[]> {
    const { program, owned } = { program: this.#programs.get(name) as Program, owned: await this.#settled(name) }
    const before = this.#writers.now()
    const start = Date.now()
    program.child.kill(signal)
    const at = await this.#writers.changed(owned, before)
    await program.exited
    return at.map((time) => time - start)
  }

  /**
   * Starts the processor: ms from when it is up, and asks to be let in, to the last first commit of its share; and for how
   * many ms each partition of that had no commit.
   */
  async join(name: string): Promise<{ ms: number; stood: number[] }> {
    const before = this.#writers.now()
    const program = await this.#cluster.processor(name)
    this.#programs.set(name, program)
    const share = await this.#settled(name)
    const at = await this.#writers.changed(share, before)
    return {
      ms: Math.max(...at) - firstLine(program, 'the endpoint is listening'),
      stood: this.#writers.stood(share),
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#writers[Symbol.asyncDispose]()
    await this.#cluster.stop()
  }

  /** Waits until both have an even share and every standby runs; the partitions of `name`. */
  async #settled(name: string): Promise<number[]> {
    const deadline = performance.now() + SETTLED_WITHIN_MS
    for (;;) {
      const infos = await this.#cluster.partitions()
      const whole = infos.every(({ owner, standbys }) => {
        return owner?.state === 'running' && standbys.length === 1 && standbys[0]?.state === 'running'
      })
      const owned = infos.filter(({ owner }) => owner?.instance === name).map(({ partition }) => partition)
      if (whole && owned.length === this.#partitions / 2) return owned
      if (performance.now() > deadline) throw new Error(`the pair has not settled: ${JSON.stringify(infos)}`)
      await pause(POLL_MS)
    }
  }
}

function figure(what: string, samples: readonly number[], atMost?: number): Figure {
  const { p50, p95 } = percentiles(samples)
  const note = `p50 ${Math.round(p50)} ms, most ${Math.max(...samples)} ms, ${samples.length} samples`
  return {
    what: `moving: ${what}, p95`,
    value: p95,
    unit: 'ms',
    ...(atMost === undefined ? {} : { limit: { atMost } }),
    note,
  }
}

interface StreamsPair {
  readonly brokers: string
  readonly application: string
  readonly topic: string
  readonly partitions: number
}

/** The same kill of one of two instances of the peer: ms until the other has committed to every partition. */
async function killStreams({ brokers, application, topic, partitions }: StreamsPair): Promise<number> {
  const options = { brokers, application, topic, threads: 1, standbys: 1, sessionTimeoutMs: PEER_SESSION_MS }
  await using first = await Streams.start(options)
  await using second = await Streams.start(options)
  await first.event(({ event }) => event === 'committed')
  await using writers = await Writers.open(brokers, `${application}-status-changelog`, partitions)
  await writers.shared(2)
  // It does not say when its standbys are warm.
  await pause(PEER_WARM_MS)
  const start = Date.now()
  await second.kill()
  return (await writers.shared(1)) - start
}
