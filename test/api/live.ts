import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Registry } from 'prom-client'
import { vi } from 'vitest'
import { type Api, type AppOptions, buildApp } from '../../api/app.ts'
import { RoutedReader } from '../../api/reader/reader.ts'
import type { StatusReader } from '../../processor/contract/query.ts'
import { writeRecord } from '../../processor/contract/write.ts'
import { EmbeddedLog } from '../../processor/log/embedded/embedded-log.ts'
import { Processor } from '../../processor/processor.ts'
import { letterReader } from '../../processor/query/log-readers.ts'
import { silent } from './stage.ts'

/** The application over a real log and a processor, in one process and without sockets. */
export class Live implements AsyncDisposable {
  readonly log: EmbeddedLog
  readonly reader: StatusReader
  readonly api: Api
  readonly #running: AsyncDisposableStack
  #devices = 0

  private constructor(log: EmbeddedLog, reader: StatusReader, api: Api, running: AsyncDisposableStack) {
    this.log = log
    this.reader = reader
    this.api = api
    this.#running = running
  }

  static async open(): Promise<Live> {
    await using opening = new AsyncDisposableStack()
    const root = await mkdtemp(join(tmpdir(), 'tidemark-api-'))
    opening.defer(() => rm(root, { recursive: true }))
    const registry = new Registry()
    const log = opening.use(
      await EmbeddedLog.open({ folder: join(root, 'log'), partitions: 4, logger: silent, registry }),
    )
    const made = { log, instance: 'one', endpoint: 'one', folder: join(root, 'one'), logger: silent, registry }
    const processor = opening.use(await Processor.open({ ...made, now: Date.now, limits: { minCommitIntervalMs: 1 } }))
    const leave = new AbortController()
    const membership = processor.run(leave.signal)
    opening.defer(() => {
      leave.abort()
      return membership
    })
    const owners = () => log.owners()
    const connect = () => processor.reader
    const reader = new RoutedReader({ partitions: 4, owners, connect, logger: silent, now: Date.now })
    const writer: AppOptions['writer'] = {
      write: (deviceId, write) => log.write(writeRecord(deviceId, write, Date.now())),
    }
    const letters = letterReader(log)
    const api = await buildApp({
      reader,
      writer,
      letters,
      checks: async () => [],
      registry,
      logger: silent,
    })
    opening.defer(() => api.close())
    await vi.waitFor(
      async () => {
        const owned = (await reader.partitions()).filter(({ owner }) => owner?.state === 'running')
        if (owned.length < 4) throw new Error(`${owned.length} of 4 partitions are running`)
      },
      { timeout: 20_000, interval: 5 },
    )
    return new Live(log, reader, api, opening.move())
  }

  /** The id of a device that nobody spoke of before, when it can be read. */
  async device(): Promise<string> {
    const id = `truck-${++this.#devices}`
    await this.says(id, { t: 1 })
    return id
  }

  /** Resolves when the message can be read. */
  async says(deviceId: string, payload: object): Promise<void> {
    const value = Buffer.from(JSON.stringify(payload))
    const position = await this.log.write({ key: deviceId, value, timestamp: Date.now() })
    await this.reader.getPast(position, deviceId, 20_000)
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#running.disposeAsync()
  }
}
