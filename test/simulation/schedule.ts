import assert from 'node:assert/strict'
import { UnavailableError } from '../../processor/contract/errors.ts'
import { partitionOf } from '../../processor/contract/partition.ts'
import { type Answer, bufferOf, type PartitionReader } from '../../processor/contract/query.ts'
import { connectivityRecord, type NewRecord, type Offset } from '../../processor/contract/record.ts'
import { type Write, writeRecord } from '../../processor/contract/write.ts'
import type { LogRecord, Topic } from '../../processor/log/log.ts'
import type { LevelStore } from '../../processor/store/level-store.ts'
import { LevelStores } from '../../processor/store/level-stores.ts'
import { type Disk, SimulatedLevel } from './disk.ts'
import { canonical, checkCommits, Expected, replay, type Seen, type Statuses, same } from './oracle.ts'
import { Scheduler } from './scheduler.ts'
import { checkIndex, forgetIndex } from './store-index.ts'
import { LOGGER, PARTITIONS, World } from './world.ts'

/** Steps between two disturbances, on average. */
const STEPS_BETWEEN = 25
/** Steps in which a world that is not disturbed must come to rest. */
const MAX_STEPS_TO_REST = 20_000
/** While the world comes to rest the fleet goes on reporting, so seldom that each report can be dealt with. */
const STEPS_BETWEEN_REPORTS = 1_000
const STEPS_BETWEEN_LOOKS = 8
const DEVICES = ['d0', 'd1', 'd2', 'd3', 'd4'] as const
const EVERYTHING = { maxRecords: 1_000, maxBytes: 1 << 24 }

interface Sent {
  readonly records: readonly NewRecord[]
  acknowledged: boolean
}

/** One life of a small world: disturbed by chance, left alone until it rests, and then compared with what must be. */
export class Schedule {
  readonly #scheduler: Scheduler
  readonly #world: World
  readonly #sent: Sent[] = []
  readonly #seen: Seen[] = []
  readonly #numbers = new Map<string, number>()
  #message = 0
  #session = 0
  /** By how much the clocks of ingest are ahead, ms: they leap, as in a fleet that reports seldom. */
  #leapt = 0

  constructor(seed: number) {
    this.#scheduler = new Scheduler(seed)
    this.#scheduler.install()
    this.#world = new World(this.#scheduler)
  }

  get steps(): number {
    return this.#scheduler.steps
  }

  /** Rejects when an invariant does not hold. */
  async run(): Promise<void> {
    const scheduler = this.#scheduler
    this.#world.openLog()
    for (let disturbances = 10 + scheduler.integer(20); disturbances > 0; disturbances--) {
      await this.#disturb()
      for (let steps = scheduler.integer(2 * STEPS_BETWEEN); steps > 0; steps--) await this.#step()
    }
    await this.#rest()
    await this.#check()
  }

  async #step(): Promise<void> {
    await this.#scheduler.step()
    if (this.#world.errors.length > 0) throw this.#world.errors[0]
  }

  async #disturb(): Promise<void> {
    const scheduler = this.#scheduler
    const world = this.#world
    const seat = world.seats[scheduler.integer(world.seats.length)] as World['seats'][number]
    const dice = scheduler.integer(100)
    if (dice < 40) this.#send()
    else if (dice < 50) this.#readAll()
    else if (dice < 68) world.join(seat)
    else if (dice < 73) world.leave(seat)
    else if (dice < 80) await this.#kill(seat)
    else if (dice < 87) world.freeze(seat)
    else if (dice < 92) world.thaw(seat)
    else if (dice < 94) world.compact()
    else if (dice < 96) world.logDisk.failing = 1
    else if (dice < 97) seat.disk.failing = 1 + scheduler.integer(2)
    else await this.#crash()
  }

  async #kill(seat: World['seats'][number]): Promise<void> {
    this.#world.kill(seat)
    await this.#scheduler.settle()
    await this.#checkStore(seat.disk)
    if (this.#scheduler.chance(0.2)) await forgetIndex(seat.disk)
  }

  async #crash(): Promise<void> {
    this.#world.crash()
    await this.#scheduler.settle()
    for (const { disk } of this.#world.seats) await this.#checkStore(disk)
    this.#world.openLog()
  }

  #send(): void {
    const scheduler = this.#scheduler
    const records = Array.from({ length: 1 + scheduler.integer(4) }, () => this.#record())
    const sent: Sent = { records, acknowledged: false }
    this.#sent.push(sent)
    this.#world.append(records).then(
      () => (sent.acknowledged = true),
      () => {},
    )
  }

  #record(): NewRecord {
    const scheduler = this.#scheduler
    const key = DEVICES[scheduler.integer(DEVICES.length)] as string
    if (scheduler.chance(0.1)) this.#leapt += 20 * 60_000
    const timestamp = scheduler.now + this.#leapt
    const dice = scheduler.integer(20)
    if (dice === 0) return { key, value: Buffer.from(`{"not json ${this.#message++}`), timestamp }
    if (dice === 1) {
      const state = scheduler.chance(0.5) ? 'online' : 'offline'
      const reason = state === 'online' ? 'connected' : 'connection lost'
      return connectivityRecord(key, { state, reason, session: ++this.#session }, timestamp)
    }
    if (dice === 2) {
      const record = writeRecord(key, this.#write(), timestamp)
      return { ...record, headers: { ...record.headers, message: String(this.#message++) } }
    }
    const last = this.#numbers.get(key) ?? 0
    // Sometimes an older message comes again, as from a device that has not seen its acknowledgement.
    const seq = scheduler.chance(0.2) ? Math.max(1, last - scheduler.integer(3)) : last + 1
    this.#numbers.set(key, Math.max(last, seq))
    const ts = timestamp - scheduler.integer(50)
    return { key, value: Buffer.from(JSON.stringify({ ts, seq, values: { message: this.#message++ } })), timestamp }
  }

  #write(): Write {
    const scheduler = this.#scheduler
    const ifMatch = scheduler.chance(0.3) ? [String(scheduler.integer(4))] : undefined
    if (scheduler.chance(0.5)) return { kind: 'deletion', ifMatch }
    const operation = scheduler.chance(0.5) ? 'replace' : 'merge'
    return { kind: 'attributes', operation, attributes: { message: this.#message++ }, ifMatch }
  }

  #readAll(): void {
    for (const { life } of this.#world.seats) {
      const reader = life?.processor?.reader
      if (life === undefined || reader === undefined) continue
      for (const deviceId of DEVICES) void this.#scheduler.within(life.process, () => this.#read(reader, deviceId))
    }
  }

  async #read(reader: PartitionReader, deviceId: string): Promise<void> {
    const partition = partitionOf(deviceId, PARTITIONS)
    try {
      const [answer] = await reader.getMany(partition, [deviceId])
      const { status, freshness } = answer as Answer
      const committed = await this.#world.committed(partition)
      const text = status === undefined ? undefined : canonical(bufferOf(status))
      this.#seen.push({ partition, deviceId, status: text, offset: freshness.offset, committed })
    } catch (error) {
      // The processor holds no copy of the partition, or none that is whole.
      if (!(error instanceof UnavailableError)) this.#world.errors.push(error)
    }
  }

  /** Nothing is disturbed any more: everything must come to the end of its input by itself. */
  async #rest(): Promise<void> {
    const world = this.#world
    world.logDisk.failing = 0
    for (const seat of world.seats) {
      seat.disk.failing = 0
      world.thaw(seat)
    }
    for (let steps = 0; steps % STEPS_BETWEEN_LOOKS > 0 || !(await this.#rested()); steps++) {
      if (steps === MAX_STEPS_TO_REST) assert.fail(`the world does not come to rest: ${await this.#standing()}`)
      for (const seat of world.seats) if (seat.life === undefined) world.join(seat)
      // The embedded group has no heartbeats: a zombie learns what it is when it commits.
      if (steps % STEPS_BETWEEN_REPORTS === 0) this.#send()
      await this.#step()
    }
  }

  async #rested(): Promise<boolean> {
    const { log } = this.#world
    if (log === undefined || log.fault !== undefined) return false
    const copies = await this.#copies()
    for (let partition = 0; partition < PARTITIONS; partition++) {
      const { end: input } = await log.bounds({ topic: 'telemetry', index: partition })
      const { end: changelog } = await log.bounds({ topic: 'status', index: partition })
      const here = copies.filter((copy) => copy.partition === partition && copy.state === 'running')
      const owner = here.filter(({ role, offset }) => role === 'owner' && offset === input)
      const standby = here.filter(({ role, changelogOffset }) => role === 'standby' && changelogOffset === changelog)
      if (owner.length !== 1 || standby.length !== 1) return false
    }
    return true
  }

  async #copies() {
    const copies = []
    for (const { life } of this.#world.seats) {
      if (life?.processor !== undefined) copies.push(...(await life.processor.reader.copies()))
    }
    return copies
  }

  async #standing(): Promise<string> {
    const { log } = this.#world
    return JSON.stringify({ fault: log?.fault?.message, copies: await this.#copies() })
  }

  async #check(): Promise<void> {
    const telemetry = await this.#all('telemetry')
    this.#checkAcknowledged(telemetry)
    const deadLetters = (await this.#all('dead-letters')).flat()
    const expected = telemetry.map((records) => new Expected(records))
    const rejected = expected.reduce((sum, each) => sum + each.rejected, 0)
    assert.equal(deadLetters.length, rejected, 'each rejected record is one dead letter')
    for (const seen of this.#seen) expected[seen.partition]?.checkSeen(seen)
    const changelogs = await this.#all('status')
    for (const [partition, changelog] of changelogs.entries()) {
      const { input } = expected[partition] as Expected
      const end = (changelog.at(-1)?.offset ?? -1) + 1
      const final = (expected[partition] as Expected).at(input.length)
      if (!this.#world.compacted) checkCommits(changelog, expected[partition] as Expected)
      same(replay(changelog, Number.POSITIVE_INFINITY), final, `changelog ${partition}`)
      for (const { name, disk, life } of this.#world.seats) {
        const copies = await life?.processor?.reader.copies()
        const copy = copies?.find((one) => one.partition === partition && one.state === 'running')
        // One that is about to end may be behind.
        if (copy?.changelogOffset !== end) continue
        const store = await this.#store(disk, partition)
        const what = `the ${copy.role}'s store of partition ${partition} on ${name}`
        same(await contents(store), final, what)
        await checkIndex(store, disk, partition, final, what)
        assert.equal(copy.devices, final.size, `devices counted by the ${copy.role} of partition ${partition}`)
      }
    }
  }

  /** What was acknowledged is in the log, once, and in the order in which each device said it. */
  #checkAcknowledged(telemetry: readonly (readonly LogRecord[])[]): void {
    const values = telemetry.map((records) => records.map(textOf))
    const last = new Map<string, number>()
    for (const { records, acknowledged } of this.#sent) {
      if (!acknowledged) continue
      for (const record of records) {
        const { key } = record
        const partition = values[partitionOf(key as string, PARTITIONS)] as string[]
        const text = textOf(record)
        const at = partition.indexOf(text)
        assert(at >= 0, `an acknowledged message is not in the log: ${text}`)
        assert.equal(partition.lastIndexOf(text), at, `a message is in the log twice: ${text}`)
        assert(at > (last.get(key as string) ?? -1), `messages of ${key} changed their order: ${text}`)
        last.set(key as string, at)
      }
    }
  }

  /** A store whose process has ended holds just what the changelog held at its checkpoint. */
  async #checkStore(disk: Disk): Promise<void> {
    disk.failing = 0
    const { log, compacted } = this.#world
    for (let partition = 0; partition < PARTITIONS; partition++) {
      const store = await this.#store(disk, partition)
      const { checkpoint } = store
      const what = `a dead processor's store of partition ${partition}`
      await checkIndex(store, disk, partition, await contents(store), what)
      // A log that is being opened again answers nobody.
      if (checkpoint === undefined || compacted || log === undefined || log.fault !== undefined) continue
      const { end } = await log.bounds({ topic: 'status', index: partition })
      assert(checkpoint.changelog <= end, `a store is ahead of its changelog: ${checkpoint.changelog} of ${end}`)
      const changelog = (await this.#all('status'))[partition] as LogRecord[]
      same(await contents(store), replay(changelog, checkpoint.changelog), what)
    }
  }

  async #store(disk: Disk, partition: number): Promise<LevelStore> {
    const { log } = this.#world
    const db = new SimulatedLevel<string, Buffer>(disk, { keyEncoding: 'utf8', valueEncoding: 'buffer' })
    const identity = log?.identity ?? { cluster: '', telemetry: '', status: '', partitions: 0 }
    const stores = await LevelStores.open(db, { identity, logger: LOGGER })
    return stores.store(partition)
  }

  async #all(topic: Topic): Promise<LogRecord[][]> {
    const { log } = this.#world
    if (log === undefined) throw new Error('the log is not open')
    const all: LogRecord[][] = []
    for (let index = 0; index < PARTITIONS; index++) {
      const { start, end } = await log.bounds({ topic, index })
      all.push(start === end ? [] : await readTo(log, topic, index, start, end))
    }
    return all
  }
}

/** Tells a record from all others; a deletion has no value. */
function textOf({ value, headers }: NewRecord): string {
  return value === null ? `deletion ${headers?.message}` : Buffer.from(value).toString()
}

async function readTo(
  log: NonNullable<World['log']>,
  topic: Topic,
  index: number,
  start: Offset,
  end: Offset,
): Promise<LogRecord[]> {
  const records: LogRecord[] = []
  const stop = new AbortController()
  for await (const batch of log.follow({ topic, index }, start, EVERYTHING, stop.signal)) {
    records.push(...batch.records)
    if (batch.next >= end) break
  }
  stop.abort()
  return records
}

async function contents(store: LevelStore): Promise<Statuses> {
  const entries = await store.range(undefined, 1_000)
  return new Map(entries.map(([key, value]) => [key, canonical(value)]))
}
