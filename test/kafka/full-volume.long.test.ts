import { rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import type { NewRecord } from '../../processor/log/log.ts'
import { Cluster } from '../../simulators/cluster.ts'
import type { Kafka } from '../../simulators/kafka/kafka.ts'
import { record } from '../contract/log-records.ts'
import { kafkaMissing, startKafka } from './kafka.ts'

const ENTRY = fileURLToPath(new URL('full-volume.ts', import.meta.url))
const PARTITIONS = 4
const DEVICES = 100
const PATIENCE = { timeout: 90_000, interval: 50 }

describe.skipIf(kafkaMissing !== undefined)('a processor whose stores have no space', { timeout: 300_000 }, () => {
  let kafka: Kafka
  let cluster: Cluster
  let said = 0

  beforeAll(async () => {
    kafka = await startKafka()
    cluster = await Cluster.open(kafka.brokers, PARTITIONS)
  }, 180_000)

  afterAll(async () => {
    await cluster?.[Symbol.asyncDispose]()
    await kafka?.[Symbol.asyncDispose]()
  })

  /** Of all partitions some devices that nobody knew. */
  async function say(): Promise<void> {
    await using log = await cluster.log()
    const records = Array.from({ length: DEVICES }, (_, i): NewRecord => record(`device-${said + i}`, '{"n":1}'))
    said += DEVICES
    await log.append('telemetry', records)
  }

  async function expectAll(): Promise<void> {
    expect(await cluster.json('/v1/devices/count')).toMatchObject({ count: said })
  }

  /** By instance, owned partitions and copies. */
  async function held(): Promise<Record<string, readonly [owned: number, copies: number]>> {
    const partitions = await cluster.partitions()
    const names = ['a', 'b'].map((name) => {
      const owned = partitions.filter(({ owner }) => owner?.instance === name && owner.state === 'running')
      const copies = partitions.filter(({ standbys }) => standbys.some(({ instance }) => instance === name))
      return [name, [owned.length, copies.length]] as const
    })
    return Object.fromEntries(names)
  }

  test('holds none while another can, and takes its part again when it can write', async () => {
    const full = join(cluster.dataDir, 'full')
    await cluster.processor('b')
    const a = cluster.processorIn(ENTRY, 'a', { FULL: full })
    await cluster.api()
    await say()
    const even = { a: [2, 2], b: [2, 2] }
    await vi.waitFor(async () => {
      expect(await held()).toEqual(even)
      await expectAll()
    }, PATIENCE)

    await writeFile(full, '')
    await say()
    await vi.waitFor(async () => {
      expect(await held()).toEqual({ a: [0, 0], b: [PARTITIONS, 0] })
      await expectAll()
    }, PATIENCE)
    expect(a.stderr).toContain('the group is asked to give the partitions of this processor to others')

    await rm(full)
    await vi.waitFor(async () => expect(await held()).toEqual(even), PATIENCE)
    await say()
    await vi.waitFor(expectAll, PATIENCE)
  })
})
