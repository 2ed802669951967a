import pino from 'pino'
import { Registry } from 'prom-client'
import type { NewRecord, Offset } from '../../processor/contract/record.ts'
import { EmbeddedLog } from '../../processor/log/embedded/embedded-log.ts'
import { decodeNumbers, storageKey } from '../../processor/log/embedded/storage.ts'
import type { Claim, Log, Member } from '../../processor/log/log.ts'
import { Processor } from '../../processor/processor.ts'
import { Disk, DiskFailure, SimulatedLevel } from './disk.ts'
import type { Process, Scheduler } from './scheduler.ts'

export const PARTITIONS = 2
const NAMES = ['a', 'b', 'c'] as const
export const LOGGER = pino({ enabled: false })
/** Of all processors there ever were: their making costs more than the rest of a life. */
const REGISTRY = new Registry()
/** Small, so that restores, evictions from the cache and bounds of batches happen in a schedule of some hundred steps. */
const LIMITS = { batchRecords: 3, changelogRecords: 2, cacheEntries: 3 }
/** Of every third life: each status fills a commit. */
const SMALL_COMMITS = { ...LIMITS, statusBytes: 1 }

/** A processor, in a process of its own, with a disk that outlives it. */
interface Seat {
  readonly name: string
  readonly disk: Disk
  life: Life | undefined
}

interface Life {
  readonly process: Process
  readonly instance: string
  readonly leaving: AbortController
  readonly limits: typeof LIMITS
  processor: Processor | undefined
}

/** The log in one process and processors in others, whose messages to it and whose disks take their time. */
export class World {
  readonly scheduler: Scheduler
  readonly logDisk: Disk
  readonly seats: readonly Seat[]
  log: EmbeddedLog | undefined
  /** What went wrong where nothing may go wrong. */
  readonly errors: unknown[] = []
  compacted = false
  #logProcess: Process
  #lives = 0

  constructor(scheduler: Scheduler) {
    this.scheduler = scheduler
    this.logDisk = new Disk(scheduler)
    this.seats = NAMES.map((name) => ({ name, disk: new Disk(scheduler), life: undefined }))
    this.#logProcess = scheduler.process('log')
  }

  /** Starts the log on what its disk holds. */
  openLog(): void {
    const process = this.scheduler.process('log')
    this.#logProcess = process
    this.log = undefined
    void this.scheduler.within(process, () => this.#open(process))
  }

  async #open(process: Process): Promise<void> {
    try {
      const log = await EmbeddedLog.open({
        folder: 'simulated',
        partitions: PARTITIONS,
        standbys: 1,
        database: () => new SimulatedLevel(this.logDisk, { keyEncoding: 'buffer', valueEncoding: 'buffer' }),
        compaction: { minDirtyBytes: 1 << 20 },
        tailRecords: 4,
        logger: LOGGER,
        registry: new Registry(),
        now: () => this.scheduler.now,
        monotonic: () => this.scheduler.now,
      })
      if (process.alive) this.log = log
    } catch (error) {
      if (!process.alive) return
      // Whoever watches over the process starts it again.
      if (isDiskFailure(error)) this.scheduler.within(this.scheduler.driver, () => this.openLog())
      else this.errors.push(error)
    }
  }

  /** Resolves as the log's `append` does. */
  append(records: readonly NewRecord[]): Promise<void> {
    const { log } = this
    if (log === undefined) return Promise.reject(new Error('the log is not open'))
    return this.scheduler.within(this.#logProcess, () => log.append('telemetry', records))
  }

  /** The input offset that the disk holds as committed, whoever knows of it. */
  async committed(partition: number): Promise<Offset> {
    const position = await this.logDisk.content.get(storageKey('position', 'telemetry', partition))
    return position === undefined ? 0 : (decodeNumbers(position)[1] as number)
  }

  /** Compacts the changelog, whether or not that is due. */
  compact(): void {
    const { log } = this
    if (log === undefined) return
    this.compacted = true
    this.scheduler.within(this.#logProcess, () => void log.tidy())
  }

  /** The processor's next life, on what its disk holds. */
  join(seat: Seat): void {
    const { log, scheduler } = this
    if (log === undefined || seat.life !== undefined) return
    const instance = `${seat.name}-${++this.#lives}`
    const life: Life = {
      process: scheduler.process(instance),
      instance,
      leaving: new AbortController(),
      limits: this.#lives % 3 === 0 ? SMALL_COMMITS : LIMITS,
      processor: undefined,
    }
    seat.life = life
    void scheduler.within(life.process, () => this.#live(seat, life, log))
  }

  async #live(seat: Seat, life: Life, log: EmbeddedLog): Promise<void> {
    const { scheduler } = this
    try {
      life.processor = await Processor.open({
        log: this.#remote(log, life.process),
        instance: life.instance,
        endpoint: life.instance,
        folder: 'simulated',
        database: () => new SimulatedLevel(seat.disk, { keyEncoding: 'utf8', valueEncoding: 'buffer' }),
        logger: LOGGER,
        registry: REGISTRY,
        now: () => scheduler.now,
        monotonic: () => scheduler.now,
        sleep: (ms, signal) => scheduler.sleep(ms, signal),
        limits: life.limits,
      })
      await life.processor.run(life.leaving.signal)
      await life.processor[Symbol.asyncDispose]()
    } catch (error) {
      if (!isDiskFailure(error)) this.errors.push(error)
    }
    life.process.alive = false
    if (seat.life === life) seat.life = undefined
  }

  leave(seat: Seat): void {
    seat.life?.leaving.abort()
  }

  kill(seat: Seat): void {
    const { life } = seat
    if (life === undefined) return
    this.scheduler.kill(life.process)
    seat.life = undefined
    const { log } = this
    if (log !== undefined) this.scheduler.within(this.#logProcess, () => log.evict(life.instance, { dead: true }))
  }

  /** The processor stands still, and the group goes on without it. */
  freeze(seat: Seat): void {
    const { life } = seat
    const { log } = this
    if (life === undefined || log === undefined) return
    life.process.frozen = true
    this.scheduler.within(this.#logProcess, () => log.evict(life.instance))
  }

  thaw(seat: Seat): void {
    if (seat.life !== undefined) seat.life.process.frozen = false
  }

  /** Everything ends at once. */
  crash(): void {
    for (const seat of this.seats) {
      if (seat.life !== undefined) this.scheduler.kill(seat.life.process)
      seat.life = undefined
    }
    this.scheduler.kill(this.#logProcess)
    this.log = undefined
  }

  /** The log as a process sees it over a network. */
  #remote(log: EmbeddedLog, process: Process): Log {
    const { scheduler } = this
    const there = <T>(work: () => T): T => scheduler.within(this.#logProcess, work)
    const ask = async <T>(work: () => Promise<T>): Promise<T> => {
      await scheduler.park()
      try {
        return await there(work)
      } finally {
        await scheduler.park()
      }
    }
    return {
      identity: log.identity,
      deleteRetentionMs: 24 * 3600_000,
      maxGatherMs: log.maxGatherMs,
      fault: undefined,
      faultAt: () => undefined,
      append: () => Promise.reject(new Error('processors do not append')),
      write: () => Promise.reject(new Error('processors do not append')),
      bounds: (of) => ask(() => log.bounds(of)),
      owners: () => ask(() => log.owners()),
      follow: (of, from, limits, signal) => follow(() => log.follow(of, from, limits, signal), ask),
      join: (member, signal) => there(() => log.join(this.#member(member, process, ask), signal)),
      [Symbol.asyncDispose]: async () => {},
    }
  }

  #member(member: Member, process: Process, ask: Ask): Member {
    const here = <T>(work: () => T): T => this.scheduler.within(process, work)
    return {
      instance: member.instance,
      endpoint: member.endpoint,
      positions: () => here(() => member.positions()),
      standby: (partition, signal, copying) => here(() => member.standby(partition, signal, copying)),
      active: (claim, signal) => here(() => member.active(this.#claim(claim, ask), signal)),
    }
  }

  #claim(claim: Claim, ask: Ask): Claim {
    const { partition, epoch, start, inputEnd } = claim
    return {
      partition,
      epoch,
      start,
      inputEnd,
      get held() {
        return claim.held
      },
      commit: (work) => ask(() => claim.commit(work)),
    }
  }
}

/** The error, or what it was caused by, is of the disk's making. */
function isDiskFailure(error: unknown): boolean {
  for (let cause = error; cause instanceof Error; cause = cause.cause) if (cause instanceof DiskFailure) return true
  return false
}

type Ask = <T>(work: () => Promise<T>) => Promise<T>

async function* follow<T>(open: () => AsyncIterable<T>, ask: Ask): AsyncGenerator<T> {
  const batches = open()[Symbol.asyncIterator]()
  try {
    for (;;) {
      const { done, value } = await ask(() => batches.next())
      if (done === true) return
      yield value
    }
  } finally {
    await batches.return?.()
  }
}
