import { randomUUID } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pino from 'pino'
import { Registry } from 'prom-client'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import type { Status } from '../../processor/contract/status.ts'
import { KafkaLog } from '../../processor/log/kafka/kafka-log.ts'
import type { NewRecord } from '../../processor/log/log.ts'
import { Processor } from '../../processor/processor.ts'
import type { Kafka } from '../../simulators/kafka/kafka.ts'
import { read } from '../contract/log-member.ts'
import { keyIn, record, text } from '../contract/log-records.ts'
import { kafkaMissing, startKafka } from './kafka.ts'

const PARTITIONS = 4
/** A minute of the product takes two thirds of a second. */
const BALANCE_MS = 1000 / 3
/** Appends that take thirty rounds: twice as many as the group rests after moves. */
const LONG = 200
const PATIENCE = { timeout: 60_000, interval: 20 }

interface Line {
  readonly msg: string
  readonly instance?: string
  readonly partition?: number
}

/** Processors of one group in this process, each with a log and a folder of its own. */
class Stage implements AsyncDisposable {
  readonly prefix = `balance-${randomUUID()}`
  readonly lines: Line[] = []
  readonly #brokers: string
  readonly #standbys: number
  readonly #stack = new AsyncDisposableStack()
  readonly #registries: Registry[] = []
  log!: KafkaLog

  private constructor(brokers: string, standbys: number) {
    this.#brokers = brokers
    this.#standbys = standbys
  }

  static async open(brokers: string, standbys: number): Promise<Stage> {
    const stage = new Stage(brokers, standbys)
    stage.log = await stage.#connect()
    for (const instance of ['a', 'b']) await stage.#start(instance)
    await vi.waitFor(async () => {
      const sizes = [...(await stage.owned()).values()].map((partitions) => partitions.length)
      expect(sizes).toEqual([2, 2])
      // The group may tell so before the role of a former owner has ended.
      expect(['a', 'b'].map((instance) => stage.#working(instance))).toEqual([2, 2])
    }, PATIENCE)
    return stage
  }

  /** Active roles of an instance, as its log tells it. */
  #working(instance: string): number {
    const told = (what: string) => this.lines.filter((line) => line.msg === what && line.instance === instance).length
    return told('active role begins') - told('active role ended')
  }

  async #connect(): Promise<KafkaLog> {
    const registry = new Registry()
    this.#registries.push(registry)
    const log = await KafkaLog.open({
      brokers: [this.#brokers],
      prefix: this.prefix,
      group: this.prefix,
      partitions: PARTITIONS,
      standbys: this.#standbys,
      balanceMs: BALANCE_MS,
      appendTimeoutMs: PATIENCE.timeout,
      logger: pino({}, { write: (line) => this.lines.push(JSON.parse(line) as Line) }),
      registry,
    })
    return this.#stack.use(log)
  }

  async #start(instance: string): Promise<void> {
    const folder = await mkdtemp(join(tmpdir(), 'tidemark-balance-'))
    this.#stack.defer(() => rm(folder, { recursive: true }))
    const made = { instance, endpoint: `${instance}:1`, folder, log: await this.#connect() }
    const process = { logger: pino({ level: 'silent' }), registry: new Registry(), now: Date.now }
    const processor = this.#stack.use(await Processor.open({ ...made, ...process }))
    const leaving = new AbortController()
    const done = processor.run(leaving.signal)
    this.#stack.defer(() => {
      leaving.abort()
      return done
    })
  }

  /** Partitions by owner. */
  async owned(): Promise<Map<string | undefined, number[]>> {
    const owners = [...(await this.log.owners())]
    const byOwner = Map.groupBy(owners, ([, { active }]) => active?.instance)
    return new Map([...byOwner].map(([instance, all]) => [instance, all.map(([partition]) => partition)]))
  }

  /** Partitions that were moved for the sake of load, as the metric tells it. */
  async moves(): Promise<number> {
    let moves = 0
    for (const registry of this.#registries) {
      const metric = await registry.getSingleMetric('tidemark_load_moves_total')?.get()
      moves += metric?.values[0]?.value ?? 0
    }
    return moves
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#stack.disposeAsync()
  }
}

/** One device per partition; those of `hot` send thirty times as much. */
class Load {
  readonly sent = new Map<string, number>()
  readonly #log: KafkaLog
  readonly #hot: readonly number[]

  constructor(log: KafkaLog, hot: readonly number[]) {
    this.#log = log
    this.#hot = hot
  }

  /** Sends until `enough` says so, about 20 times a second. */
  async until(enough: () => Promise<boolean> | boolean): Promise<void> {
    while (!(await enough())) {
      const pace = new Promise((resolve) => setTimeout(resolve, 50))
      await this.#log.append(
        'telemetry',
        [0, 1, 2, 3].flatMap((partition) => this.#next(partition)),
      )
      await pace
    }
  }

  #next(partition: number): NewRecord[] {
    const key = keyIn(partition, PARTITIONS)
    return Array.from({ length: this.#hot.includes(partition) ? 150 : 5 }, () => {
      const seq = (this.sent.get(key) ?? 0) + 1
      this.sent.set(key, seq)
      return record(key, JSON.stringify({ seq, values: { count: seq } }))
    })
  }
}

/** Every message counts once: each status of a device has one that is newer than the last, up to all that were sent. */
async function verify({ log }: Stage, { sent }: Load): Promise<void> {
  await vi.waitFor(async () => {
    const all = [0, 1, 2, 3].map(async (index) => {
      const { end } = await log.bounds({ topic: 'status', index })
      const statuses = (await read(log, 'status', index, 0, end)).map((r) => JSON.parse(text(r)) as Status)
      const counts = statuses.map(({ counters }) => counters.messages)
      expect(counts).toEqual([...new Set(counts)].sort((x, y) => x - y))
      expect(statuses.at(-1)).toMatchObject({
        counters: { messages: sent.get(keyIn(index, PARTITIONS)), duplicates: 0, late: 0 },
      })
    })
    await Promise.all(all)
  }, PATIENCE)
}

describe.skipIf(kafkaMissing !== undefined)('two processors with as many partitions', { timeout: 180_000 }, () => {
  let kafka: Kafka

  beforeAll(async () => {
    kafka = await startKafka()
  }, 180_000)

  afterAll(() => kafka[Symbol.asyncDispose]())

  test.each([
    { standbys: 1, copies: 'at once, to the copies that are there' },
    { standbys: 0, copies: 'when copies have been made' },
  ])('but with unlike load even it, $copies, lose nothing, and leave it', async ({ standbys }) => {
    await using stage = await Stage.open(kafka.brokers, standbys)
    const before = await stage.owned()
    const hot = before.get('a') as number[]
    const load = new Load(stage.log, hot)
    const from = stage.lines.length
    await load.until(async () => (await stage.moves()) === 2)
    let after = before
    await load.until(async () => {
      after = await stage.owned()
      return after.get('b')?.some((partition) => hot.includes(partition)) === true
    })
    for (const owned of after.values()) expect(owned.filter((partition) => hot.includes(partition))).toHaveLength(1)
    let more = LONG
    await load.until(() => more-- === 0)
    expect(await stage.owned()).toEqual(after)
    expect(await stage.moves()).toBe(2)
    await verify(stage, load)

    const said = stage.lines.slice(from)
    const warmed = said.findIndex(({ msg }) => /uneven: copies are made/.test(msg))
    const moved = said.findIndex(({ msg }) => /uneven: partitions move/.test(msg))
    if (standbys === 0) expect(warmed).toBeGreaterThanOrEqual(0)
    else expect(warmed).toBe(-1)
    expect(moved).toBeGreaterThan(warmed)
    const stopped = said.filter(({ msg }) => msg === 'active role ended').map(({ partition }) => partition)
    const changed = [...after].flatMap(([instance, owned]) =>
      owned.filter((p) => before.get(instance)?.includes(p) === false),
    )
    expect(stopped).toHaveLength(2)
    expect(new Set(stopped)).toEqual(new Set(changed))
  })
})
