import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { parsePosition } from '../../processor/contract/record.ts'
import type { KafkaLog } from '../../processor/log/kafka/kafka-log.ts'
import type { LogRecord } from '../../processor/log/log.ts'
import { Cluster } from '../../simulators/cluster.ts'
import type { Kafka } from '../../simulators/kafka/kafka.ts'
import { freePorts, type Program } from '../../simulators/program.ts'
import { read } from '../contract/log-member.ts'
import { kafkaMissing, startKafka } from './kafka.ts'

const PARTITIONS = 4
const IDS = Array.from({ length: 12 }, (_, i) => `truck-${i}`)
const DEADLINE = { timeout: 20_000, interval: 10 }

describe.skipIf(kafkaMissing !== undefined)('writes to a cluster of processes', { timeout: 240_000 }, () => {
  let kafka: Kafka
  let cluster: Cluster
  let log: KafkaLog
  /** Two API processes, by their ports. */
  let ports: [number, number]
  const processors = new Map<string, Program>()

  beforeAll(async () => {
    kafka = await startKafka()
    cluster = await Cluster.open(kafka.brokers, PARTITIONS)
    ports = (await freePorts(2)) as [number, number]
    const [a, b] = await Promise.all([
      cluster.processor('a'),
      cluster.processor('b'),
      ...ports.map((port) => cluster.api(port)),
      cluster.api(),
    ])
    processors.set('a', a).set('b', b)
    log = await cluster.log()
    const value = Buffer.from('{"t":1}')
    await log.append(
      'telemetry',
      IDS.map((key) => ({ key, value, timestamp: Date.now() })),
    )
    await vi.waitFor(async () => {
      expect(await cluster.owned()).toEqual({ a: 2, b: 2 })
      const copies = (await cluster.partitions()).flatMap(({ standbys }) => standbys)
      expect(copies.filter(({ state }) => state === 'running')).toHaveLength(PARTITIONS)
    }, DEADLINE)
  }, 180_000)

  afterAll(async () => {
    await log?.[Symbol.asyncDispose]()
    await cluster?.[Symbol.asyncDispose]()
    await kafka?.[Symbol.asyncDispose]()
  })

  async function ask(api: 0 | 1, method: string, path: string, body?: object, headers: Record<string, string> = {}) {
    const type: Record<string, string> = body === undefined ? {} : { 'content-type': 'application/json' }
    const init = body === undefined ? {} : { body: JSON.stringify(body) }
    const url = `http://127.0.0.1:${ports[api]}/v1/devices/${path}`
    const response = await fetch(url, { method, headers: { ...type, ...headers }, ...init })
    const text = await response.text()
    const answer = text === '' ? {} : (JSON.parse(text) as { position: string; rev: number; attributes: object })
    return { status: response.status, position: response.headers.get('tidemark-position'), answer, text }
  }

  /** The device as of a position. One that is not reached in the 2 s of a read is answered with 503: it is asked for again. */
  function reached(api: 0 | 1, id: string, position: string | null) {
    return vi.waitFor(async () => {
      const got = await ask(api, 'GET', `${id}?atLeast=${position}`)
      expect(got.status, got.text).not.toBe(503)
      return got
    }, DEADLINE)
  }

  async function ownerOf(partition: number): Promise<string> {
    const { owner } = (await cluster.partitions())[partition] ?? {}
    if (owner?.state !== 'running') throw new Error(`partition ${partition} has no owner`)
    return owner.instance
  }

  test('are read by the other API process at once, whoever owns the device', async () => {
    for (const [i, id] of IDS.entries()) {
      const put = await ask(0, 'PUT', `${id}/attributes`, { n: i })
      expect(put.status, put.text).toBe(202)
      const got = await reached(1, id, put.position)
      expect([got.status, got.text]).toEqual([200, expect.stringContaining(`"attributes":{"n":${i}}`)])
    }
  })

  test('survive kill -9 of the owner, one of those that race for a rev is applied, and a deletion reaches standbys', async () => {
    const [id, gone, kept] = IDS as [string, string, string]
    const start = (await ask(0, 'GET', id)).answer as { rev: number }
    const put = await ask(0, 'PUT', `${id}/attributes`, { n: 'before' })
    const { partition } = parsePosition(put.position ?? '') as { partition: number }
    const owner = await ownerOf(partition)
    await (processors.get(owner) as Program).kill()

    // Both ask for the rev after the write above, which the dead owner may not have applied.
    const headers = { 'if-match': `"${start.rev + 1}"`, prefer: 'wait=10' }
    const [own, ...racing] = await Promise.all([
      reached(1, id, put.position),
      ask(0, 'PATCH', `${id}/attributes`, { winner: 0 }, headers),
      ask(1, 'PATCH', `${id}/attributes`, { winner: 1 }, headers),
    ])
    expect([own.status, own.text]).toEqual([200, expect.stringContaining('"n":"before"')])
    expect(racing.map(({ status }) => status).toSorted((x, y) => x - y)).toEqual([200, 412])
    const winner = racing.findIndex(({ status }) => status === 200)
    const { answer } = await ask(0, 'GET', id)
    expect(answer).toMatchObject({ rev: start.rev + 2, attributes: { n: 'before', winner } })
    expect(await ownerOf(partition)).not.toBe(owner)

    processors.set(owner, await cluster.processor(owner))
    await vi.waitFor(async () => expect(await cluster.owned()).toEqual({ a: 2, b: 2 }), DEADLINE)
    const deletion = await ask(1, 'DELETE', gone, undefined, { prefer: 'wait=10' })
    expect([deletion.status, deletion.text]).toEqual([204, ''])
    expect((await reached(0, gone, deletion.position)).status).toBe(404)
    const at = parsePosition(deletion.position ?? '') as { partition: number; offset: number }
    await vi.waitFor(async () => {
      const [standby] = (await cluster.partitions())[at.partition]?.standbys ?? []
      expect(standby?.state).toBe('running')
      expect(standby?.offset).toBeGreaterThan(at.offset)
    }, DEADLINE)
    await (processors.get(await ownerOf(at.partition)) as Program).kill()
    // Of the new owner, or of the standby that it was.
    expect((await reached(0, gone, deletion.position)).status).toBe(404)
    expect((await ask(1, 'PUT', `${gone}/attributes`, { a: 1 }, { prefer: 'wait=10' })).status).toBe(404)

    const last = new Map<string, LogRecord>()
    for (let index = 0; index < PARTITIONS; index++) {
      const { end } = await log.bounds({ topic: 'status', index })
      for (const record of await read(log, 'status', index, 0, end)) last.set(record.key as string, record)
    }
    expect(last.get(gone)?.value).toBeNull()
    expect(JSON.parse(Buffer.from(last.get(kept)?.value ?? []).toString())).toMatchObject({ attributes: { n: 2 } })
  })
})
