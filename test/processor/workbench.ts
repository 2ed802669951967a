import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Logger } from 'pino'
import pino from 'pino'
import { Registry } from 'prom-client'
import { RocksLevel } from 'rocksdb-level'
import { vi } from 'vitest'
import { type Answer, bufferOf } from '../../processor/contract/query.ts'
import { DEFAULT_LIMITS, type ProcessorLimits } from '../../processor/limits.ts'
import type { Claim, Copying, NewRecord } from '../../processor/log/log.ts'
import { EndToEndLatency, ProcessorMetrics } from '../../processor/metrics.ts'
import { RestoreProgress } from '../../processor/partition/restore-progress.ts'
import type { PartitionCopy, Role } from '../../processor/partition/role.ts'
import { Standby } from '../../processor/partition/standby.ts'
import { StoreWriter } from '../../processor/partition/store-writer.ts'
import { Task, type TaskParts } from '../../processor/partition/task.ts'
import { PositionWaiters, WriteOutcomes } from '../../processor/partition/waiters.ts'
import { ForeignStatuses, StoreReader } from '../../processor/query/store-reader.ts'
import { InFlight, RestorePriority } from '../../processor/runtime/limiter.ts'
import { Turns } from '../../processor/runtime/turns.ts'
import { Searcher } from '../../processor/search/searcher.ts'
import { LevelStores } from '../../processor/store/level-stores.ts'
import { StatusCache } from '../../processor/store/status-cache.ts'
import type { StateStore } from '../../processor/store/store.ts'
import type { MemoryLog } from './memory-log.ts'

export const RECEIVED = Date.UTC(2026, 10, 24, 10)

export function said(key: string | null, json: unknown, timestamp = RECEIVED): NewRecord {
  const value = Buffer.from(typeof json === 'string' ? json : JSON.stringify(json))
  return { key, value, timestamp, headers: undefined }
}

export function statusOf(answer: Answer | undefined): Record<string, unknown> & { counters: Record<string, number> } {
  if (answer?.status === undefined) throw new Error('the device is not known')
  return JSON.parse(bufferOf(answer.status).toString())
}

/** A role at work; `stop` aborts it and gives what became of it. */
export interface Running {
  readonly role: Role
  stop(): Promise<void>
  readonly done: Promise<void>
}

/** Roles over a memory log and a real store, without a group. */
export class Workbench implements AsyncDisposable {
  readonly log: MemoryLog
  readonly registry = new Registry()
  readonly lines: string[] = []
  readonly logger: Logger = pino({}, { write: (line) => this.lines.push(line) })
  readonly roles = new Map<number, Role>()
  readonly reader: StoreReader
  readonly parts: TaskParts
  readonly #running = new Set<Running>()
  readonly #copies = new Map<number, PartitionCopy>()
  readonly #folder: string
  #stores: LevelStores
  now = RECEIVED
  /** How far the wall clock has been set, ms. */
  set = 0

  private constructor(log: MemoryLog, folder: string, stores: LevelStores, limits: Partial<ProcessorLimits>) {
    this.log = log
    this.#folder = folder
    this.#stores = stores
    const cache = { maxEntries: limits.cacheEntries ?? 1000, maxBytes: limits.cacheBytes ?? 1_000_000 }
    const searcher = new Searcher(new Turns(), () => this.now)
    const foreign = new ForeignStatuses(this.logger)
    this.reader = new StoreReader({ instance: 'one', roles: this.roles, searcher, foreign })
    const metrics = new ProcessorMetrics(this.registry)
    const { logger } = this
    const now = () => this.now + this.set
    const clock = { now, monotonic: () => this.now, sleep: immediately }
    const retries = { retryMinMs: limits.retryMinMs ?? 0, retryMaxMs: limits.retryMaxMs ?? DEFAULT_LIMITS.retryMaxMs }
    const reopen = () => this.#stores.reopen()
    this.parts = {
      instance: 'one',
      log,
      clock,
      statuses: new StatusCache(cache),
      turns: new Turns(),
      restorePriority: new RestorePriority(immediately),
      inFlight: new InFlight(DEFAULT_LIMITS.inFlightRecords, immediately),
      limits: { ...DEFAULT_LIMITS, minCommitIntervalMs: 0, ...limits, ...retries },
      writer: new StoreWriter({ instance: 'one', metrics, logger, clock, ...retries, reopen }),
      latency: new EndToEndLatency({ instance: 'one', metrics, logger, now }),
      metrics,
      logger,
    }
  }

  static async open(log: MemoryLog, limits: Partial<ProcessorLimits> = {}): Promise<Workbench> {
    const folder = await mkdtemp(join(tmpdir(), 'tidemark-role-'))
    return new Workbench(log, folder, await openStores(folder, log), limits)
  }

  store(partition = 0): Promise<StateStore> {
    return this.#stores.store(partition)
  }

  /** Roles that follow each other share it, but a store that is given is of its own. */
  async #copy(partition: number, store?: StateStore): Promise<PartitionCopy> {
    const known = this.#copies.get(partition)
    if (known !== undefined && store === undefined) return known
    const copy = {
      store: store ?? (await this.store(partition)),
      outcomes: new WriteOutcomes(),
      waiters: new PositionWaiters(),
      progress: new RestoreProgress(this.parts.clock.monotonic),
      onWhole: () => {},
    }
    if (store === undefined) this.#copies.set(partition, copy)
    return copy
  }

  /** As after the end of the process: another database object on the same folder. */
  async reopen(): Promise<void> {
    await this.#stores[Symbol.asyncDispose]()
    this.#stores = await openStores(this.#folder, this.log)
    this.#copies.clear()
  }

  async task(claim: Claim = this.log.claim(), store?: StateStore): Promise<Running> {
    return this.#run(new Task(this.parts, claim, await this.#copy(claim.partition, store)), claim.partition)
  }

  async standby(
    partition = 0,
    copying: Copying = { heir: false, held: true, whole: () => {} },
    store?: StateStore,
  ): Promise<Running> {
    return this.#run(new Standby(this.parts, partition, await this.#copy(partition, store), copying), partition)
  }

  /** Resolves when the store holds all input and the whole changelog. */
  async settled(partition = 0): Promise<void> {
    await vi.waitFor(
      async () => {
        const { end: input } = await this.log.bounds({ topic: 'telemetry', index: partition })
        const { end: changelog } = await this.log.bounds({ topic: 'status', index: partition })
        const role = this.roles.get(partition)
        const { checkpoint } = role?.store ?? {}
        if (role?.state !== 'running') throw new Error('no role is running')
        if (role.kind === 'owner' && checkpoint?.input !== input)
          throw new Error(`input ${checkpoint?.input} of ${input}`)
        if (checkpoint?.changelog !== changelog) throw new Error(`changelog ${checkpoint?.changelog} of ${changelog}`)
      },
      { timeout: 10_000, interval: 2 },
    )
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.allSettled([...this.#running].map((running) => running.stop()))
    await this.#stores[Symbol.asyncDispose]()
    await rm(this.#folder, { recursive: true })
  }

  #run(role: Task | Standby, partition: number): Running {
    const stopping = new AbortController()
    this.roles.set(partition, role)
    const done = role.run(stopping.signal)
    const stop = () => {
      stopping.abort()
      this.#running.delete(running)
      return done
    }
    const running = { role, done, stop }
    this.#running.add(running)
    done.catch(() => this.#running.delete(running))
    return running
  }
}

function openStores(folder: string, log: MemoryLog): Promise<LevelStores> {
  const db = new RocksLevel<string, Buffer>(folder, { keyEncoding: 'utf8', valueEncoding: 'buffer' })
  return LevelStores.open(db, { identity: log.identity, logger: pino({ enabled: false }) })
}

function immediately(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve))
}
