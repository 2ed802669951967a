import { join } from 'node:path'
import pino from 'pino'
import { Registry } from 'prom-client'
import { RocksLevel } from 'rocksdb-level'
import { EmbeddedLog } from '../../../processor/log/embedded/embedded-log.ts'
import type { Log } from '../../../processor/log/log.ts'
import { aborted } from '../../../processor/runtime/pause.ts'
import { LevelStores } from '../../../processor/store/level-stores.ts'
import { ChangelogCheck } from '../checks/changelog-check.ts'
import { type CopyReading, type Expected, readAlone, readApi, readCopy, storePages } from '../checks/copies.ts'
import { InputCount, removedSince } from '../checks/input-count.ts'
import { EmbeddedStage, type EmbeddedStageOptions } from './embedded-stage.ts'
import type { Engine, Gathered, GatherOptions, LogReading } from './engine.ts'
import type { Committed } from './foreign.ts'
import { deadLettersOf, Looks, readRecords } from './kafka-engine.ts'
import { ApiSight } from './observer.ts'

const LOGGER = pino({ level: 'silent' })

/** One process on the embedded log. Its folders belong to it: they are looked into when it has ended. */
export class EmbeddedEngine implements Engine {
  readonly stage: EmbeddedStage
  readonly sight: ApiSight

  private constructor(stage: EmbeddedStage) {
    this.stage = stage
    this.sight = new ApiSight(stage.api)
  }

  static async start(options: EmbeddedStageOptions): Promise<EmbeddedEngine> {
    return new EmbeddedEngine(await EmbeddedStage.open(options))
  }

  async ends(): Promise<undefined> {
    return undefined
  }

  async committed(): Promise<readonly Committed[]> {
    return []
  }

  async gather({ prefix, ids, samples }: GatherOptions): Promise<Gathered> {
    const looks = new Looks()
    const answers = await looks.at('the answers of the API', () => readApi(this.stage.api, ids))
    const alone = await looks.at('the answers for single devices', () => readAlone(this.stage.api, ids))
    // A stop in order would tell of every device that it is gone, after the answers were taken.
    const runs = this.stage.left.length > 0
    if (runs) await looks.at('the process, to end it', () => this.stage.kill())
    const read = await looks.at('the log', () => this.#read(prefix, samples))
    const copies = await looks.at('the stores', async () => {
      // One that ended amid its work may have committed what its stores were still to get.
      if (!runs) throw new Error('the process ended before it came to rest')
      return read?.copies
    })
    return { answers, alone, log: read?.log, copies, missing: looks.missing }
  }

  async #read(prefix: string, samples: GatherOptions['samples']): Promise<{ log: LogReading; copies: CopyReading[] }> {
    const { partitions, dataDir } = this.stage
    await using log = await EmbeddedLog.open({
      folder: join(dataDir, 'log'),
      partitions,
      logger: LOGGER,
      registry: new Registry(),
    })
    const committed = await committedIn(log)
    const input = new InputCount(
      prefix,
      committed.map((of) => of.input),
    )
    const changelog = new ChangelogCheck(prefix, samples)
    const changelogEnds: number[] = []
    for (let partition = 0; partition < partitions; partition++) {
      await readRecords(log, 'telemetry', partition, (record) => input.take(partition, record))
      changelogEnds.push(await readRecords(log, 'status', partition, (record) => changelog.take(partition, record)))
    }
    changelog.finish()
    const starts: number[] = []
    for (let index = 0; index < partitions; index++)
      starts.push((await log.bounds({ topic: 'telemetry', index })).start)
    const removed = removedSince([], starts)
    const copies = await this.#copies(log, { prefix, partitions, statuses: input.statuses })
    const deadLetters = await deadLettersOf(log, prefix)
    return { log: { input, removed, changelog, committed, changelogEnds, deadLetters }, copies }
  }

  /** Of every store that has been whole. */
  async #copies(log: Log, expected: Expected): Promise<CopyReading[]> {
    const readings: CopyReading[] = []
    for (const folder of this.stage.storeFolders) {
      const db = new RocksLevel<string, Buffer>(folder, { keyEncoding: 'utf8', valueEncoding: 'buffer' })
      await using stores = await LevelStores.open(db, { identity: log.identity, logger: LOGGER })
      for (const partition of await stores.partitions()) {
        const store = await stores.store(partition)
        if (store.checkpoint?.whole !== true) continue
        const of = { instance: folder.split('/').at(-1) as string, partition, role: 'stored' as const }
        readings.push(await readCopy(of, storePages(store), expected))
      }
    }
    return readings
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stage[Symbol.asyncDispose]()
  }
}

/** Where each partition stands, as its next claim is told. */
async function committedIn(log: Log): Promise<Committed[]> {
  const committed: Committed[] = []
  const all = new AbortController()
  await log.join(
    {
      instance: 'drill',
      endpoint: 'local:drill',
      positions: () => new Map(),
      async active({ partition, start }, signal) {
        committed[partition] = { input: start.input, changelogEnd: start.changelogEnd }
        if (Object.keys(committed).length === log.identity.partitions) all.abort()
        await aborted(signal)
      },
      standby: (_, signal) => aborted(signal),
    },
    all.signal,
  )
  return committed
}
