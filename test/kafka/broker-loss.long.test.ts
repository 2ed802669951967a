import { randomUUID } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import pino from 'pino'
import { Registry } from 'prom-client'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { RetryableError } from '../../processor/contract/errors.ts'
import { KafkaLog } from '../../processor/log/kafka/kafka-log.ts'
import { aborted } from '../../processor/runtime/pause.ts'
import type { Kafka } from '../../simulators/kafka/kafka.ts'
import { read, TestMember } from '../contract/log-member.ts'
import { numbered, record, text } from '../contract/log-records.ts'
import { kafkaMissing, startKafka } from './kafka.ts'

const PATIENCE_MS = 60_000
/** Two appends, one after the other, are given up in half of the time that a request has (8 s); a slow machine makes one in it. */
const APPEND_MS = 2_000

describe.skipIf(kafkaMissing !== undefined)('when the broker goes and comes back', { timeout: PATIENCE_MS * 6 }, () => {
  let kafka: Kafka
  const logs: KafkaLog[] = []

  beforeAll(async () => {
    kafka = await startKafka()
  }, 180_000)

  afterAll(async () => {
    await Promise.all(logs.map((log) => log[Symbol.asyncDispose]()))
    await kafka[Symbol.asyncDispose]()
  })

  async function open(prefix: string, options: { appendTimeoutMs?: number } = {}): Promise<KafkaLog> {
    const log = await KafkaLog.open({
      brokers: [kafka.brokers],
      prefix,
      group: prefix,
      partitions: 2,
      standbys: 0,
      ...options,
      logger: pino({ level: process.env.TEST_LOG_LEVEL ?? 'silent' }),
      registry: new Registry(),
    })
    logs.push(log)
    return log
  }

  test.each(['stop', 'kill'] as const)('%s: appends wait, nothing is lost or doubled, claims go on', async (way) => {
    const log = await open(`loss-${randomUUID()}`, { appendTimeoutMs: PATIENCE_MS })
    const done: number[] = []
    const member = new TestMember('a', {
      async active(claim, signal) {
        const { input, changelogEnd } = claim.start
        let count = (await read(log, 'status', claim.partition, 0, changelogEnd)).length
        while (!signal.aborted) {
          await claim.commit({ changelog: [record('count', `${++count}`)], deadLetters: [], next: input })
          done.push(claim.partition)
        }
      },
    }).join(log)
    await vi.waitFor(() => expect(new Set(done).size).toBe(2), PATIENCE_MS)
    await log.append('telemetry', numbered(0, 100))
    const following = read(log, 'telemetry', 0, 0, (all) => all.some((r) => r.key === 'last'))

    await kafka[way]()
    let sent = 100
    const waiting: Promise<void>[] = []
    for (let i = 0; i < 10; i++, sent += 10) waiting.push(log.append('telemetry', numbered(sent, 10)))
    await vi.waitFor(() => expect(log.fault).toBeInstanceOf(RetryableError), PATIENCE_MS)
    await kafka.start()
    await Promise.all(waiting)
    await vi.waitFor(() => expect(log.fault).toBeUndefined(), PATIENCE_MS)
    // `last` may live in either partition, and tells the follower of the first that it has seen everything there.
    await log.append(
      'telemetry',
      [record('last', ''), record('1', '')].filter((r) => r.key === 'last'),
    )
    done.length = 0
    await vi.waitFor(() => expect(new Set(done).size).toBe(2), PATIENCE_MS)
    await member.leave()
    expect(member.outcome).toBe('left')

    const all = await Promise.all(
      [0, 1].map(async (index) => {
        const { end } = await log.bounds({ topic: 'telemetry', index })
        return read(log, 'telemetry', index, 0, end)
      }),
    )
    const values = all.flat().map(text)
    expect(values.filter((value) => value !== '').length).toBe(sent)
    expect(new Set(values).size).toBe(sent + 1)
    for (const index of [0, 1]) {
      const { end } = await log.bounds({ topic: 'status', index })
      const counts = (await read(log, 'status', index, 0, end)).map((r) => Number(text(r)))
      expect(counts).toEqual(counts.map((_, i) => i + 1))
    }
    if (all[0]?.some((r) => r.key === 'last')) expect((await following).map(text)).toEqual(all[0].map(text))
    else void following.catch(() => {})
  })

  test('an append that gets no answer in its time rejects, and the next ones are in order', async () => {
    const log = await open(`slow-${randomUUID()}`)
    await log.append('telemetry', numbered(0, 10))
    await kafka.kill()
    await expect(log.append('telemetry', numbered(10, 10))).rejects.toMatchObject({
      name: RetryableError.name,
      code: 'LOG_UNAVAILABLE',
    })
    await kafka.start()
    await vi.waitFor(() => expect(log.fault).toBeUndefined(), PATIENCE_MS)
    await Promise.all([log.append('telemetry', numbered(20, 10)), log.append('telemetry', numbered(30, 10))])
    for (const index of [0, 1]) {
      const { end } = await log.bounds({ topic: 'telemetry', index })
      const numbers = (await read(log, 'telemetry', index, 0, end)).map((r) => Number(text(r)))
      expect(numbers).toEqual([...numbers].sort((a, b) => a - b))
    }
  })

  test('a broker that hangs is noticed without its answer, and appends go on in order when it wakes', async () => {
    const log = await open(`hang-${randomUUID()}`, { appendTimeoutMs: APPEND_MS })
    await vi.waitFor(() => log.append('telemetry', numbered(0, 10)), PATIENCE_MS)
    process.kill(kafka.pid as number, 'SIGSTOP')
    try {
      await vi.waitFor(() => allStopped(kafka.pid as number), PATIENCE_MS)
      // A request that is given its whole time; the appends must not wait so long.
      let answered = false
      const question = log.bounds({ topic: 'telemetry', index: 0 }).finally(() => (answered = true))
      question.catch(() => {})
      // The first is sent, the second waits behind it.
      const first = log.append('telemetry', numbered(10, 10))
      await Promise.all([first, log.append('telemetry', numbered(20, 10))].map(rejected))
      await rejected(log.append('telemetry', numbered(30, 10)))
      await vi.waitFor(() => expect(log.fault).toBeInstanceOf(RetryableError), PATIENCE_MS)
      expect(answered).toBe(false)
    } finally {
      process.kill(kafka.pid as number, 'SIGCONT')
    }
    await vi.waitFor(() => expect(log.fault).toBeUndefined(), PATIENCE_MS)
    await vi.waitFor(() => log.append('telemetry', numbered(40, 10)), PATIENCE_MS)
    await log.append('telemetry', numbered(50, 10))
    for (const index of [0, 1]) {
      const { end } = await log.bounds({ topic: 'telemetry', index })
      const numbers = (await read(log, 'telemetry', index, 0, end)).map((r) => Number(text(r))).filter((n) => n >= 50)
      expect(numbers).toEqual([...numbers].sort((a, b) => a - b))
      expect(new Set(numbers).size).toBe(numbers.length)
    }
  })

  test('a log that was never there is told apart from one that is closed', async () => {
    const log = await open(`closed-${randomUUID()}`)
    const stop = new AbortController()
    const member = new TestMember('a', { active: (_, signal) => aborted(signal) })
    const joined = log.join(member, stop.signal)
    await vi.waitFor(() => expect(member.claims.size).toBe(2), PATIENCE_MS)
    const ended = expect(joined).rejects.toMatchObject({ code: 'LOG_CLOSED' })
    await log[Symbol.asyncDispose]()
    await ended
    await expect(log.append('telemetry', numbered(0, 1))).rejects.toMatchObject({ code: 'LOG_CLOSED' })
  })
})

function rejected(append: Promise<void>): Promise<void> {
  return expect(append).rejects.toMatchObject({ code: 'LOG_UNAVAILABLE' })
}

/** A signal is sent before each thread has met it. */
async function allStopped(pid: number): Promise<void> {
  for (const thread of await readdir(`/proc/${pid}/task`)) {
    expect(await readFile(`/proc/${pid}/task/${thread}/stat`, 'utf8')).toMatch(/\) T /)
  }
}
