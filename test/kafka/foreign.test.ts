import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pino from 'pino'
import { Registry } from 'prom-client'
import { describe, expect, test } from 'vitest'
import { produce } from '../../processor/log/kafka/protocol/produce.ts'
import {
  BASE_TIMESTAMP_AT,
  encodeBatch,
  MAX_TIMESTAMP_AT,
  sizeBound,
} from '../../processor/log/kafka/protocol/record-batch.ts'
import type { NewRecord } from '../../processor/log/log.ts'
import { Processor } from '../../processor/processor.ts'
import { read } from '../contract/log-member.ts'
import { record, text } from '../contract/log-records.ts'
import { sealed } from './batches.ts'
import { beginTransaction, kafkaByHand, LANE, openByHand, type World } from './by-hand.ts'
import { kafkaMissing } from './kafka.ts'

const LONG_MAX = 2n ** 63n - 1n
const LONG_MIN = -(2n ** 63n)

/** What the Java client lets another writer put into the telemetry topic, and Tidemark's own appender does not. */
describe.skipIf(kafkaMissing !== undefined)('records of another writer', { timeout: 60_000 }, () => {
  const kafka = kafkaByHand()

  test('that no log would take again, by size or time, become dead letters, and their partition goes on', async () => {
    const world = await openByHand(kafka())
    const { log } = world
    // The claim begins behind the record that the world's commit speaks of.
    await log.append('telemetry', [record('first', '{"x":0}')])
    await writeForeign(world, { key: 'large', value: Buffer.alloc(1536 * 1024, 'x'), timestamp: Date.now() })
    await writeForeign(world, record('late', '{"x":1}'), LONG_MAX)
    const good = record('good', '{"x":1}')
    await log.append('telemetry', [good])
    await writeForeign(world, record('early', '{"x":1}'), LONG_MIN)

    const letters = await processed(world, 3)
    expect(letters.map(({ key, timestamp, headers }) => [key, timestamp, { ...headers }])).toEqual([
      [
        'large',
        expect.any(Number),
        expect.objectContaining({ reason: 'payload-too-large', truncated: 'value=1572864' }),
      ],
      ['late', -1, expect.objectContaining({ reason: 'bad-timestamp', timestamp: String(2 ** 63) })],
      ['early', -1, expect.objectContaining({ reason: 'bad-timestamp', timestamp: String(-(2 ** 63)) })],
    ])
    // Each partition of a transaction has a marker of its own: that of the changelog may come after that of the dead letters.
    const changelog = await read(log, 'status', 0, 0, (records) => records.some(({ key }) => key === 'good'))
    expect(changelog.map(({ key, timestamp }) => [key, timestamp])).toContainEqual(['good', good.timestamp])
    await log[Symbol.asyncDispose]()
    world.network.close()
  })

  test('of transactions that were aborted in another order than they began are not given', async () => {
    const world = await openByHand(kafka())
    const later = await beginTransaction(world, 'telemetry', 'later')
    const earlier = await beginTransaction(world, 'telemetry', 'earlier')
    await earlier.write('aborted')
    await later.write('aborted')
    await later.abort()
    await earlier.write('aborted')
    await earlier.abort()
    await world.log.append('telemetry', [record('key', 'given')])
    const { end } = await world.log.bounds({ topic: 'telemetry', index: 0 })
    const got = await read(world.log, 'telemetry', 0, 0, end)
    expect([got.map(text), end]).toEqual([['given'], 6])
    await world.log[Symbol.asyncDispose]()
    world.network.close()
  })
})

/** As a batch of its own, whose time is any 64 bits. */
async function writeForeign({ cluster, names }: World, written: NewRecord, time?: bigint): Promise<void> {
  const bytes = encodeBatch([written], 0, 1, sizeBound(written), { id: -1, epoch: -1 }, -1, false)
  if (time !== undefined) {
    for (const at of [BASE_TIMESTAMP_AT, MAX_TIMESTAMP_AT]) bytes.writeBigInt64BE(time, at)
    sealed(bytes)
  }
  const leader = await cluster.connection(LANE, await cluster.leader(names.telemetry, 0))
  const [produced] = await produce(leader, null, [{ topic: names.telemetry, partition: 0, bytes }])
  expect(produced?.error).toBeUndefined()
}

/** The dead letters that a processor makes of what is in the log. */
async function processed({ log }: World, letters: number) {
  const folder = await mkdtemp(join(tmpdir(), 'tidemark-foreign-'))
  const made = { log, instance: 'one', endpoint: 'one:1', folder, logger: pino({ enabled: false }) }
  const stopping = new AbortController()
  const processor = await Processor.open({ ...made, registry: new Registry(), now: Date.now })
  try {
    const running = processor.run(stopping.signal)
    const got = read(log, 'dead-letters', 0, 0, (records) => records.length >= letters)
    return await Promise.race([got, running.then(() => Promise.reject(new Error('the processor has ended')))])
  } finally {
    stopping.abort()
    await processor[Symbol.asyncDispose]()
    await rm(folder, { recursive: true })
  }
}
