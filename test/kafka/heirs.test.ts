import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import type { NewRecord } from '../../processor/log/log.ts'
import { Cluster } from '../../simulators/cluster.ts'
import type { Kafka } from '../../simulators/kafka/kafka.ts'
import type { Program } from '../../simulators/program.ts'
import { record } from '../contract/log-records.ts'
import { kafkaMissing, startKafka } from './kafka.ts'

const PARTITIONS = 4
/** Of each partition enough that a copy without them lacks much. */
const DEVICES = 8_000
const PATIENCE = { timeout: 60_000, interval: 20 }

interface Line {
  readonly msg: string
  readonly partition?: number
  readonly time: number
}

/** When the process logged `msg`, by partition. */
function times(program: Program, msg: string): Map<number | undefined, number> {
  const lines = program.stderr.split('\n').filter((line) => line.endsWith('}'))
  const told = lines.map((line) => JSON.parse(line) as Line).filter((line) => line.msg === msg)
  return new Map(told.map(({ partition, time }) => [partition, time]))
}

describe.skipIf(kafkaMissing !== undefined)('a processor that joins without a store', { timeout: 180_000 }, () => {
  let kafka: Kafka
  let cluster: Cluster

  beforeAll(async () => {
    kafka = await startKafka()
    cluster = await Cluster.open(kafka.brokers, PARTITIONS, { LOG_LEVEL: 'info' })
  }, 180_000)

  afterAll(async () => {
    await cluster?.[Symbol.asyncDispose]()
    await kafka?.[Symbol.asyncDispose]()
  })

  /** Partitions by owner, once all have one that runs. */
  async function shares(): Promise<Record<string, number>> {
    const sizes: Record<string, number> = {}
    for (const { owner } of await cluster.partitions()) {
      expect(owner?.state).toBe('running')
      const { instance } = owner as { readonly instance: string }
      sizes[instance] = (sizes[instance] ?? 0) + 1
    }
    return sizes
  }

  async function devices(): Promise<number> {
    const { count } = (await (await cluster.get('/v1/devices/count')).json()) as { readonly count: number }
    return count
  }

  test('is given what another works on when it has whole copies of it', async () => {
    {
      await using log = await cluster.log()
      const records = Array.from({ length: DEVICES }, (_, i): NewRecord => record(`device-${i}`, `{"n":${i}}`))
      await log.append('telemetry', records)
    }
    const a = await cluster.processor('a')
    await cluster.api()
    await vi.waitFor(async () => {
      expect(await devices()).toBe(DEVICES)
      expect(await shares()).toEqual({ a: PARTITIONS })
    }, PATIENCE)
    const b = await cluster.processor('b')
    await vi.waitFor(async () => expect(await shares()).toEqual({ a: 2, b: 2 }), PATIENCE)
    // A claim fences the former owner, and does not wait for its end.
    const ended = await vi.waitFor(() => {
      const told = times(a, 'active role ended')
      expect(told.size).toBe(2)
      return told
    }, PATIENCE)
    const whole = times(b, 'standby running')
    for (const [partition, at] of ended) expect(whole.get(partition)).toBeLessThanOrEqual(at)
    expect(await devices()).toBe(DEVICES)
  })
})
