import { join } from 'node:path'
import pino from 'pino'
import { RocksLevel } from 'rocksdb-level'
import { expect, vi } from 'vitest'
import type { Status } from '../../processor/contract/status.ts'
import type { KafkaLog } from '../../processor/log/kafka/kafka-log.ts'
import type { Offset } from '../../processor/log/log.ts'
import { decodeRecord } from '../../processor/status/decode.ts'
import { LevelStores } from '../../processor/store/level-stores.ts'
import type { Cluster } from '../../simulators/cluster.ts'
import type { Program } from '../../simulators/program.ts'
import { modelFold, statusText } from '../status-model.ts'
import type { DeviceAnswer } from '../system/answers.ts'
import { messagesOf } from '../system/log-contents.ts'
import type { ResendingDevice } from '../system/resending-device.ts'
import { kafkaTool } from './tools.ts'

const PATIENCE = { timeout: 30_000, interval: 20 }
const READ = { maxRecords: 5000, maxBytes: 8 * 1024 * 1024 }
const PAGE = 1000

/**
 * What must hold of a cluster whatever has happened to it, once its devices have finished and `processors` run, by name:
 * what was acknowledged is answered; every record of the log counts once; the changelog, as a client that is not ours
 * reads it, ends with the answers and never went back; every store holds the fold of the input up to its checkpoint.
 * Stops the processors.
 */
export async function verify(
  cluster: Cluster,
  devices: readonly ResendingDevice[],
  processors: Readonly<Record<string, Program>>,
): Promise<void> {
  await using log = await cluster.log()
  const answers = await verifyAnswers(cluster, devices, log, Object.keys(processors).length > 1 ? 1 : 0)
  await checkChangelog(cluster, log, answers)
  await verifyStores(cluster, log, processors)
}

/** The part of `verify` that asks the API: also of devices that are written to. Every partition has so many standbys. */
export async function verifyAnswers(
  cluster: Cluster,
  devices: readonly ResendingDevice[],
  log: KafkaLog,
  standbys: number,
): Promise<DeviceAnswer[]> {
  const answers = await caughtUp(cluster, devices, log, standbys)
  await checkAnswers(answers, devices, log)
  return answers
}

/** The part of `verify` that looks into the stores. Stops the processors. */
export async function verifyStores(
  cluster: Cluster,
  log: KafkaLog,
  processors: Readonly<Record<string, Program>>,
): Promise<void> {
  const programs = Object.values(processors)
  const exits = await Promise.all(programs.map((program) => program.stop()))
  expect(exits).toEqual(programs.map(() => ({ code: 0, signal: null })))
  const expected = new Folds(log)
  for (const instance of Object.keys(processors)) await checkStore(cluster, log, instance, expected)
}

/** Of every answer, whenever and by whomever it is given: all that a device sent up to a point, once, and nothing else. */
export function checkAnswer({ counters, reported, sequence }: DeviceAnswer): void {
  expect(sequence?.seen).toEqual([[1, counters.messages]])
  expect(reported.count?.value).toBe(counters.messages)
  expect(counters).toMatchObject({ late: 0, skewed: 0 })
}

/** The answers, once nothing more can come and every copy holds what has come. */
async function caughtUp(
  cluster: Cluster,
  devices: readonly ResendingDevice[],
  log: KafkaLog,
  standbys: number,
): Promise<DeviceAnswer[]> {
  return await vi.waitFor(async () => {
    const answers = await Promise.all(devices.map(({ id }) => cluster.json<DeviceAnswer>(`/v1/devices/${id}`)))
    // The end of a connection is the last that a device has to tell.
    for (const { connectivity } of answers) expect(connectivity).toMatchObject({ state: 'offline' })
    const ends = await Promise.all(indexesOf(log).map((index) => log.bounds({ topic: 'telemetry', index })))
    for (const { partition, owner, standbys: copies } of await cluster.partitions()) {
      expect(owner).toMatchObject({ offset: ends[partition]?.end, lag: 0, state: 'running' })
      // Input without an effect does not show in the changelog, so a standby may say that it includes less.
      expect(copies).toMatchObject(Array.from({ length: standbys }, () => ({ lag: 0, state: 'running' })))
      for (const copy of copies) expect(copy.changelogOffset).toBeGreaterThanOrEqual(owner?.changelogOffset as number)
    }
    return answers
  }, PATIENCE)
}

async function checkAnswers(answers: readonly DeviceAnswer[], devices: readonly ResendingDevice[], log: KafkaLog) {
  const inLog = await messagesOf(log)
  for (const [i, answer] of answers.entries()) {
    const { made, acknowledged } = devices[i] as ResendingDevice
    checkAnswer(answer)
    expect(acknowledged).toBe(made)
    expect(answer.counters.messages).toBe(made)
    expect(answer.counters.messages + answer.counters.duplicates).toBe(inLog.get(answer.deviceId))
  }
}

async function checkChangelog(cluster: Cluster, log: KafkaLog, answers: readonly DeviceAnswer[]): Promise<void> {
  let count = 0
  for (const index of indexesOf(log)) for await (const batch of all(log, 'status', index)) count += batch.length
  const what = `--topic ${cluster.prefix}.status --from-beginning --isolation-level read_committed`
  const how = `--max-messages ${count} --timeout-ms 30000 --formatter-property print.key=true`
  const consumer = 'org.apache.kafka.tools.consumer.ConsoleConsumer'
  const printed = await kafkaTool(cluster.brokers, consumer, `${what} ${how}`.split(' '))
  const last = new Map<string, Status>()
  let seen = 0
  for (const line of printed.split('\n')) {
    const tab = line.indexOf('\t')
    // The tool tells on a line of its own how many it has read.
    if (tab < 0) continue
    const status = JSON.parse(line.slice(tab + 1)) as Status
    const key = line.slice(0, tab)
    seen++
    const before = last.get(key)
    // Whoever was fenced and wrote on would repeat a number.
    if (before !== undefined && effects(status) <= effects(before)) throw new Error(`${key} went back: ${line}`)
    last.set(key, status)
  }
  expect(seen).toBe(count)
  for (const { freshness: _, ...status } of answers) expect(last.get(status.deviceId)).toEqual(status)
}

/** Grows with everything that has an effect on a device. */
function effects({ rev, counters }: Status): number {
  return rev + counters.duplicates
}

/** What the input comes to, folded here from its beginning, record by record. */
class Folds {
  readonly #log: KafkaLog
  readonly #known = new Map<string, Promise<Map<string, string>>>()

  constructor(log: KafkaLog) {
    this.#log = log
  }

  upTo(index: number, end: Offset): Promise<Map<string, string>> {
    const name = `${index} ${end}`
    const known = this.#known.get(name) ?? this.#fold(index, end)
    this.#known.set(name, known)
    return known
  }

  async #fold(index: number, end: Offset): Promise<Map<string, string>> {
    const statuses = new Map<string, Status | undefined>()
    for await (const records of all(this.#log, 'telemetry', index)) {
      for (const record of records) {
        const decoded = decodeRecord(record)
        if (record.offset >= end || record.key === null || decoded.kind === 'rejected') continue
        statuses.set(record.key, modelFold(statuses.get(record.key), record.key, decoded))
      }
    }
    const texts = new Map<string, string>()
    for (const [key, status] of statuses) if (status !== undefined) texts.set(key, statusText(status))
    return texts
  }
}

async function checkStore(cluster: Cluster, log: KafkaLog, instance: string, expected: Folds): Promise<void> {
  const folder = join(cluster.dataDir, instance)
  const db = new RocksLevel<string, Buffer>(folder, { keyEncoding: 'utf8', valueEncoding: 'buffer' })
  await using stores = await LevelStores.open(db, { identity: log.identity, logger: pino({ level: 'silent' }) })
  expect(await stores.partitions()).toEqual(indexesOf(log))
  for (const index of indexesOf(log)) {
    const store = await stores.store(index)
    const { checkpoint } = store
    if (checkpoint === undefined) throw new Error(`${folder}: partition ${index} holds nothing`)
    const held = new Map<string, string>()
    for (let after: string | undefined; ; ) {
      const entries = await store.range(after, PAGE)
      for (const [key, value] of entries) held.set(key, value.toString())
      after = entries.at(-1)?.[0]
      if (entries.length < PAGE) break
    }
    expect(held, `${folder}: partition ${index}`).toEqual(await expected.upTo(index, checkpoint.input))
    expect(store.count).toBe(held.size)
  }
}

function indexesOf({ identity }: KafkaLog): number[] {
  return Array.from({ length: identity.partitions }, (_, index) => index)
}

async function* all(log: KafkaLog, topic: 'telemetry' | 'status', index: number) {
  const { start, end } = await log.bounds({ topic, index })
  if (start === end) return
  const found = new AbortController()
  for await (const { records, next } of log.follow({ topic, index }, start, READ, found.signal)) {
    yield records
    if (next >= end) found.abort()
  }
}
