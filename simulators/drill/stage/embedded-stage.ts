import { basename, join } from 'node:path'
import pino from 'pino'
import { Registry } from 'prom-client'
import { RocksLevel } from 'rocksdb-level'
import type { Copy, Owner } from '../../../processor/contract/query.ts'
import type { LogRecord } from '../../../processor/contract/record.ts'
import { EmbeddedLog } from '../../../processor/log/embedded/embedded-log.ts'
import { aborted } from '../../../processor/runtime/pause.ts'
import { LevelStores } from '../../../processor/store/level-stores.ts'
import { freePorts, MAIN, Program, removeFolder, temporaryFolder } from '../../program.ts'
import { type CopyReading, type Expected, readCopy, storePages } from '../checks/copies.ts'
import { readRecords } from './evidence.ts'
import { type ApiAddress, type Assigned, type ClusterView, type Committed, type LogReader, Stage } from './stage.ts'

const HOST = '127.0.0.1'
const READY_MS = 30_000
/** Longest time for one answer of the API, ms. */
const ANSWER_MS = 500
const TARGET = 'tidemark'
const SILENT = pino({ level: 'silent' })

export interface EmbeddedStageOptions {
  readonly processors: number
  readonly partitions: number
  readonly entry: string | undefined
}

/** All roles in one process, on the embedded log. Resolves when it is ready. */
export async function startEmbedded({ processors, partitions, entry = MAIN }: EmbeddedStageOptions): Promise<Stage> {
  const dataDir = await temporaryFolder()
  const [mqttPort, httpPort] = (await freePorts(2)) as [number, number]
  const api = { url: `http://${HOST}:${httpPort}`, headers: {} }
  const env = {
    HOST,
    MQTT_PORT: String(mqttPort),
    HTTP_PORT: String(httpPort),
    DATA_DIR: dataDir,
    PARTITIONS: String(partitions),
    LOG_LEVEL: 'warn',
  }
  const launch = async (): Promise<Program> => {
    const program = new Program(entry, ['up', '--processors', String(processors)], env)
    try {
      await program.ready(TARGET, api.url, READY_MS)
    } catch (error) {
      await program.kill()
      throw error
    }
    return program
  }
  const stores = Array.from({ length: processors }, (_, i) =>
    join(dataDir, i === 0 ? 'tidemark-1' : `tidemark-1-${i + 1}`),
  )
  return Stage.open(
    {
      mqtt: { host: HOST, port: mqttPort },
      api,
      partitions,
      standbys: Math.min(1, processors - 1),
      view: new EmbeddedView(api, join(dataDir, 'log'), partitions, stores),
      processors: [TARGET],
      roles: new Map([[TARGET, { launch, stores }]]),
      kafka: undefined,
      network: undefined,
      held: { [Symbol.asyncDispose]: () => removeFolder(dataDir) },
    },
    [TARGET],
  )
}

interface ApiPartition {
  readonly partition: number
  readonly owner: Omit<Copy, 'partition' | 'role'> | null
  readonly standbys: readonly Omit<Copy, 'partition' | 'role'>[]
}

/** While the process runs, its API alone tells of its partitions. */
class EmbeddedView implements ClusterView {
  readonly #api: ApiAddress
  readonly #log: string
  readonly #partitions: number
  readonly #stores: readonly string[]

  /** `log`: its folder. */
  constructor(api: ApiAddress, log: string, partitions: number, stores: readonly string[]) {
    this.#api = api
    this.#log = log
    this.#partitions = partitions
    this.#stores = stores
  }

  async assigned(): Promise<Assigned> {
    const holders = new Map<number, Owner>()
    const members = new Map<string, Owner>()
    for (const { partition, role, instance } of await this.#copies()) {
      const member = { instance, endpoint: instance }
      members.set(instance, member)
      if (role === 'owner') holders.set(partition, member)
    }
    return { stable: true, holders, members: [...members.values()] }
  }

  async copies(member: Owner): Promise<Copy[]> {
    return (await this.#copies()).filter(({ instance }) => instance === member.instance)
  }

  async #copies(): Promise<Copy[]> {
    const { url, headers } = this.#api
    const response = await fetch(`${url}/v1/partitions`, { headers, signal: AbortSignal.timeout(ANSWER_MS) })
    const { partitions } = (await response.json()) as { partitions: readonly ApiPartition[] }
    return partitions.flatMap(({ partition, owner, standbys }) => [
      ...(owner === null ? [] : [{ ...owner, partition, role: 'owner' as const }]),
      ...standbys.map((copy) => ({ ...copy, partition, role: 'standby' as const })),
    ])
  }

  async ends(): Promise<undefined> {
    return undefined
  }

  async committed(): Promise<readonly Committed[]> {
    return []
  }

  async reader(stage: Stage): Promise<LogReader> {
    const running = stage.running.includes(TARGET)
    // A clean stop would set every device offline, after the answers of the API were taken.
    if (running) await stage.kill(TARGET)
    const options = { folder: this.#log, partitions: this.#partitions, logger: SILENT, registry: new Registry() }
    return new EmbeddedReader(await EmbeddedLog.open(options), this.#stores, running)
  }
}

class EmbeddedReader implements LogReader {
  readonly log: EmbeddedLog
  readonly began: readonly number[] = []
  readonly #stores: readonly string[]
  readonly #atRest: boolean

  /** `atRest`: the process ran to the end of the drill. */
  constructor(log: EmbeddedLog, stores: readonly string[], atRest: boolean) {
    this.log = log
    this.#stores = stores
    this.#atRest = atRest
  }

  get #partitions(): number[] {
    return Array.from({ length: this.log.identity.partitions }, (_, partition) => partition)
  }

  /** Returns the positions that the next claim of each partition would be given. */
  async committed(): Promise<readonly Committed[]> {
    const committed: Committed[] = []
    const all = new AbortController()
    await this.log.join(
      {
        instance: 'drill',
        endpoint: 'local:drill',
        positions: () => new Map(),
        active: async ({ partition, start }, signal) => {
          committed[partition] = { input: start.input, changelogEnd: start.changelogEnd }
          if (Object.keys(committed).length === this.log.identity.partitions) all.abort()
          await aborted(signal)
        },
        standby: (_, signal) => aborted(signal),
      },
      all.signal,
    )
    return committed
  }

  async starts(): Promise<readonly number[]> {
    const bounds = this.#partitions.map((index) => this.log.bounds({ topic: 'telemetry', index }))
    return (await Promise.all(bounds)).map(({ start }) => start)
  }

  async telemetry(take: (partition: number, record: LogRecord) => void): Promise<void> {
    for (const index of this.#partitions) {
      await readRecords(this.log, 'telemetry', index, (record) => take(index, record))
    }
  }

  async changelog(_: readonly number[], take: (partition: number, record: LogRecord) => void): Promise<number[]> {
    const ends: number[] = []
    for (const index of this.#partitions) {
      ends.push(await readRecords(this.log, 'status', index, (record) => take(index, record)))
    }
    return ends
  }

  /** The copy in every store that was whole. */
  async readCopies(expected: Expected): Promise<CopyReading[]> {
    // A process that ended amid its work may have committed what its stores had not received yet.
    if (!this.#atRest) throw new Error('the process ended before it came to rest')
    const readings: CopyReading[] = []
    for (const folder of this.#stores) {
      const db = new RocksLevel<string, Buffer>(folder, { keyEncoding: 'utf8', valueEncoding: 'buffer' })
      await using stores = await LevelStores.open(db, { identity: this.log.identity, logger: SILENT })
      for (const partition of await stores.partitions()) {
        const store = await stores.store(partition)
        if (store.checkpoint?.whole !== true) continue
        const of = { instance: basename(folder), partition, role: 'stored' as const }
        readings.push(await readCopy(of, storePages(store), expected))
      }
    }
    return readings
  }

  close(): Promise<void> {
    return this.log[Symbol.asyncDispose]()
  }
}
