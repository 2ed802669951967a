import { createServer } from 'node:net'
import { pino } from 'pino'
import { Registry } from 'prom-client'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { Ingest } from '../../../ingest/ingest.ts'
import { DEFAULT_LIMITS } from '../../../ingest/limits.ts'
import { ConfigurationError } from '../../../processor/contract/errors.ts'
import { accessOf, HeldLog, openIngest, pinged, RawClient, WAIT } from '../fixture.ts'

function open(host: string, port: number): Promise<Ingest> {
  const logger = pino({ level: 'silent' })
  return Ingest.open({
    log: new HeldLog(),
    access: accessOf({ HOST: host, MQTT_PORT: String(port), MQTT_AUTH: 'none' }),
    logger,
    registry: new Registry(),
    now: Date.now,
    random: Math.random,
  })
}

describe('the port', () => {
  it('that is used is an error that names it and the way out', async () => {
    const server = createServer()
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const { port } = server.address() as { port: number }
    const error = await open('127.0.0.1', port).catch((caught: unknown) => caught)
    expect(error).toBeInstanceOf(ConfigurationError)
    expect(error).toMatchObject({ code: 'PORT_UNAVAILABLE', message: expect.stringContaining(`127.0.0.1:${port}`) })
    expect(String(error)).toContain('MQTT_PORT')
    await new Promise((resolve) => server.close(resolve))
  })

  it('of a host that is not here is an error that names it', async () => {
    await expect(open('192.0.2.1', 0)).rejects.toMatchObject({
      code: 'PORT_UNAVAILABLE',
      message: expect.stringContaining('192.0.2.1'),
    })
  })

  it('takes no more connections than its bound', async () => {
    const { ingest, metric } = await openIngest({ maxConnections: 2 })
    const first = await RawClient.open(ingest.port)
    await RawClient.open(ingest.port)
    await new RawClient(ingest.port).end()
    await vi.waitFor(
      async () => expect(await metric('refusals_total', { reason: 'too many connections' })).toBe(1),
      WAIT,
    )
    expect(await metric('connections')).toBe(2)
    first.socket.destroy()
    await vi.waitFor(async () => expect(await metric('connections')).toBe(1), WAIT)
    expect((await new RawClient(ingest.port).connect()).returnCode).toBe(0)
  })

  it('is taken by silence only until CONNECT', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
    onTestFinished(() => void vi.useRealTimers())
    const { ingest } = await openIngest()
    const silent = new RawClient(ingest.port)
    const client = await RawClient.open(ingest.port)
    await vi.advanceTimersByTimeAsync(DEFAULT_LIMITS.connectTimeoutMs)
    await silent.end()
    await pinged(client)
  })

  it('is free again after a stop', async () => {
    const first = await open('127.0.0.1', 0)
    await first[Symbol.asyncDispose]()
    const second = await open('127.0.0.1', first.port)
    expect(second.port).toBe(first.port)
    await second[Symbol.asyncDispose]()
    await second[Symbol.asyncDispose]()
  })
})
