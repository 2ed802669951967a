import { duplexPair } from 'node:stream'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { generate } from 'mqtt-packet'
import { pino } from 'pino'
import { Registry } from 'prom-client'
import { expect, it, onTestFinished, vi } from 'vitest'
import { Broker } from '../../ingest/broker.ts'
import { Counts } from '../../ingest/counts.ts'
import { Gather } from '../../ingest/gather.ts'
import { DEFAULT_LIMITS } from '../../ingest/limits.ts'
import { Epochs } from '../../ingest/session.ts'
import { HeldLog, publication, WAIT } from './fixture.ts'

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void

const PINGREQ = generate({ cmd: 'pingreq' })
const LETTER = publication('elsewhere', 'x'.repeat(300))
const TELEMETRY = publication('devices/truck-17/telemetry', 'x'.repeat(300))

it.each([
  ['a header', LETTER, 1],
  ['a packet that the fast path leaves', LETTER, 100],
  ['telemetry', TELEMETRY, 100],
])('the beginning of %s does not keep what was read with it', async (_, packet, bytes) => {
  const counts = new Counts(new Registry())
  const log = new HeldLog()
  const limits = { ...DEFAULT_LIMITS, stopTimeoutMs: 300 }
  const logger = pino({ level: 'silent' })
  const gather = new Gather(log, limits, counts, logger)
  const epochs = new Epochs(Date.now, Math.random)
  const broker = await Broker.open({ limits, counts, gather, epochs, logger, now: Date.now })
  onTestFinished(() => broker.stop())
  const [client, source] = duplexPair()
  let answered = 0
  client.on('data', ({ length }: Buffer) => {
    answered += length
  })
  const connection = broker.handle(source)
  connection.receive(generate({ cmd: 'connect', clientId: 'gateway' }))
  await vi.waitFor(() => expect(answered).toBe(4), WAIT)
  const read = (): WeakRef<ArrayBufferLike> => {
    const chunk = Buffer.from(new Uint8Array([...PINGREQ, ...PINGREQ, ...packet.subarray(0, bytes)]).buffer)
    connection.receive(chunk)
    return new WeakRef(chunk.buffer)
  }
  const chunk = read()
  await vi.waitFor(() => expect(answered).toBe(8), WAIT)
  await vi.waitFor(() => {
    collect()
    expect(chunk.deref()).toBeUndefined()
  }, WAIT)
  connection.receive(packet.subarray(bytes))
  await vi.waitFor(() => expect([...log.letters(), ...log.messages()]).toHaveLength(1), WAIT)
})
