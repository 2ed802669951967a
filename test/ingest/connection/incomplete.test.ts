import { duplexPair } from 'node:stream'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { generate } from 'mqtt-packet'
import { pino } from 'pino'
import { Registry } from 'prom-client'
import { expect, it, onTestFinished, vi } from 'vitest'
import { Appender } from '../../../ingest/append/batcher.ts'
import type { Connection } from '../../../ingest/connection/connection.ts'
import { DEFAULT_LIMITS } from '../../../ingest/limits.ts'
import { IngestMetrics } from '../../../ingest/metrics.ts'
import { Broker } from '../../../ingest/mqtt/broker.ts'
import { Epochs } from '../../../ingest/mqtt/session.ts'
import { HeldLog, openGuard, publication, WAIT } from '../fixture.ts'

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void

const CONNECT = generate({ cmd: 'connect', clientId: 'gateway' })
const PINGREQ = generate({ cmd: 'pingreq' })
const LETTER = publication('elsewhere', 'x'.repeat(300))
const TELEMETRY = publication('devices/truck-17/telemetry', 'x'.repeat(300))

interface Opened {
  readonly log: HeldLog
  /** Receives `packets` in one read, is answered `bytes`, and keeps nothing of that read. */
  readonly reads: (packets: readonly Buffer[], bytes: number) => Promise<void>
  readonly connection: Connection
}

async function open(): Promise<Opened> {
  const metrics = new IngestMetrics(new Registry())
  const log = new HeldLog()
  const limits = { ...DEFAULT_LIMITS, stopTimeoutMs: 300 }
  const logger = pino({ level: 'silent' })
  const appender = new Appender(log, limits, metrics, logger)
  const epochs = new Epochs(Date.now, Math.random)
  const broker = await Broker.open({
    limits,
    metrics,
    guard: await openGuard(),
    appender,
    epochs,
    logger,
    now: Date.now,
  })
  onTestFinished(() => broker.stop())
  const [client, source] = duplexPair()
  let answered = 0
  client.on('data', ({ length }: Buffer) => {
    answered += length
  })
  const connection = broker.handle(source)
  const receive = (packets: readonly Buffer[]): WeakRef<ArrayBufferLike> => {
    const chunk = Buffer.from(new Uint8Array(Buffer.concat(packets)).buffer)
    connection.receive(chunk)
    return new WeakRef(chunk.buffer)
  }
  const reads = async (packets: readonly Buffer[], bytes: number): Promise<void> => {
    const before = answered
    const chunk = receive(packets)
    await vi.waitFor(() => expect(answered).toBe(before + bytes), WAIT)
    await vi.waitFor(() => {
      collect()
      // Not of the chunk itself, which the error of an assertion that fails would keep until the next.
      expect(chunk.deref() === undefined).toBe(true)
    }, WAIT)
  }
  return { log, reads, connection }
}

it('a connection keeps nothing of its CONNECT but what it needs', async () => {
  const { reads } = await open()
  const credentials = { username: 'somebody', password: Buffer.from('secret') }
  await reads([generate({ cmd: 'connect', clientId: 'gateway', ...credentials })], 4)
})

it('the beginning of a packet that came with CONNECT does not keep that', async () => {
  const { log, reads, connection } = await open()
  await reads([CONNECT, LETTER.subarray(0, 100)], 4)
  connection.receive(LETTER.subarray(100))
  await vi.waitFor(() => expect(log.letters()).toHaveLength(1), WAIT)
})

it.each([
  ['a header', LETTER, 1],
  ['a packet that the fast path leaves', LETTER, 100],
  ['telemetry', TELEMETRY, 100],
])('the beginning of %s does not keep what was read with it', async (_, packet, bytes) => {
  const { log, reads, connection } = await open()
  await reads([CONNECT], 4)
  await reads([PINGREQ, PINGREQ, packet.subarray(0, bytes)], 4)
  connection.receive(packet.subarray(bytes))
  await vi.waitFor(() => expect([...log.letters(), ...log.messages()]).toHaveLength(1), WAIT)
})
