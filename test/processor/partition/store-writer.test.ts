import { access, cp, mkdtemp, rename, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import pino from 'pino'
import { Registry } from 'prom-client'
import { RocksLevel } from 'rocksdb-level'
import { expect, it, onTestFinished, vi } from 'vitest'
import { EmbeddedLog } from '../../../processor/log/embedded/embedded-log.ts'
import { Processor } from '../../../processor/processor.ts'
import { said, statusOf } from '../workbench.ts'

const WAIT = { timeout: 20_000, interval: 2 }

/** A database that refuses its commits, or something else, until it is opened anew, or for longer. */
class Refusing extends RocksLevel<string, Buffer> {
  refusal: Error | undefined
  refuses: 'commits' | '_get' | '_del' = 'commits'
  opened = 0
  heals = true
  whenClosed = async () => {}

  override async _open(...of: Parameters<RocksLevel['_open']>): Promise<void> {
    await super._open(...of)
    this.opened++
    if (this.heals) this.refusal = undefined
  }

  override async _close(): Promise<void> {
    await super._close()
    await this.whenClosed()
  }

  override _chainedBatch(): ReturnType<RocksLevel<string, Buffer>['_chainedBatch']> {
    const batch = super._chainedBatch()
    const write = batch._write.bind(batch)
    batch._write = async (...of) => {
      this.#refuse('commits')
      await write(...of)
    }
    return batch
  }

  override async _get(...of: Parameters<RocksLevel['_get']>): ReturnType<RocksLevel['_get']> {
    this.#refuse('_get')
    return super._get(...of)
  }

  override async _del(...of: Parameters<RocksLevel['_del']>): Promise<void> {
    this.#refuse('_del')
    await super._del(...of)
  }

  #refuse(what: typeof this.refuses): void {
    if (this.refusal !== undefined && this.refuses === what) throw this.refusal
  }
}

const EIO = Object.assign(new Error('While appending to file: Input/output error'), { code: 'LEVEL_IO_ERROR' })
const EMFILE = Object.assign(new Error('While open a file: Too many open files'), { code: 'LEVEL_IO_ERROR' })
const ENOSPC = Object.assign(new Error('No space left on device'), { code: 'LEVEL_NO_SPACE' })

/** A processor at work on two partitions, that waits for nothing. Before it takes them up, `prepare` has its database. */
async function start(prepare: (database: Refusing) => void = () => {}) {
  const root = await mkdtemp(join(tmpdir(), 'tidemark-faults-'))
  onTestFinished(() => rm(root, { recursive: true }))
  const lines: string[] = []
  const registry = new Registry()
  const silent = pino({ enabled: false })
  const log = await EmbeddedLog.open({ folder: join(root, 'log'), partitions: 2, logger: silent, registry })
  onTestFinished(() => log[Symbol.asyncDispose]())
  const folder = join(root, 'one')
  const database = new Refusing(folder, { keyEncoding: 'utf8', valueEncoding: 'buffer' })
  const processor = await Processor.open({
    log,
    instance: 'one',
    endpoint: 'one',
    folder,
    opening: database,
    logger: pino({}, { write: (line) => lines.push(line) }),
    registry,
    now: Date.now,
    sleep: (_, signal) => delay(1, undefined, { signal }).catch(() => {}),
  })
  prepare(database)
  const stopping = new AbortController()
  const done = processor.run(stopping.signal)
  done.catch(() => {})
  onTestFinished(async () => {
    stopping.abort()
    await done.catch(() => {})
    await processor[Symbol.asyncDispose]()
  })
  /** Of each partition a device says something. */
  const say = () => log.append('telemetry', [said('a', { x: 1 }, Date.now()), said('d', { x: 1 }, Date.now())])
  const counted = (messages: number) =>
    vi.waitFor(async () => {
      const answers = [...(await processor.reader.getMany(0, ['a'])), ...(await processor.reader.getMany(1, ['d']))]
      expect(answers.map((answer) => statusOf(answer).counters.messages)).toEqual([messages, messages])
    }, WAIT)
  const unwritable = async () => (await registry.getSingleMetric('tidemark_unwritable_stores')?.get())?.values[0]?.value
  const leave = () => {
    stopping.abort()
    return done
  }
  return { folder, database, processor, done, leave, lines, say, counted, unwritable }
}

it('a database that refuses all writes after an I/O error is opened anew, and nothing is lost', async () => {
  const { database, say, counted, lines, unwritable } = await start()
  await say()
  await counted(1)
  database.refusal = EIO
  await say()
  await counted(2)
  // Both partitions met it, and one opening mends both.
  expect(database.opened).toBe(2)
  expect(lines.filter((line) => line.includes('it is opened anew'))).toHaveLength(1)
  await vi.waitFor(async () => expect(await unwritable()).toBe(0), WAIT)
})

it.each([
  [EIO, /Input\/output error; see to its volume and start again/],
  [EMFILE, /Too many open files; raise the limit of open files \(ulimit -n\) and start again/],
])('where that does not help, the processor ends, and says what to see to: %s', async (refusal, message) => {
  const { database, say, counted, done } = await start()
  await say()
  await counted(1)
  database.heals = false
  database.refusal = refusal
  await say()
  await expect(done).rejects.toMatchObject({
    name: 'ConfigurationError',
    message: expect.stringMatching(message),
  })
  expect(database.opened).toBe(2)
})

it('where their folder is gone, the processor ends, and no empty one takes its place', async () => {
  const { folder, database, say, counted, done } = await start()
  await say()
  await counted(1)
  await rename(folder, `${folder}-away`)
  database.refusal = EIO
  await say()
  await expect(done).rejects.toMatchObject({
    name: 'ConfigurationError',
    code: 'FOLDER_UNAVAILABLE',
    message: expect.stringMatching(new RegExp(`${folder} cannot be used: .*does not exist.*; mount it or put it back`)),
  })
  await expect(access(folder)).rejects.toMatchObject({ code: 'ENOENT' })
})

it('where an older state of their folder has taken its place, the processor ends, and writes nothing to it', async () => {
  const { folder, database, say, counted, done } = await start()
  await say()
  await counted(1)
  await cp(folder, `${folder}-older`, { recursive: true })
  await say()
  await counted(2)
  // Not before: RocksDB writes by the path as long as it is open.
  database.whenClosed = async () => {
    await rename(folder, `${folder}-away`)
    await rename(`${folder}-older`, folder)
    database.whenClosed = async () => {}
  }
  database.refusal = EIO
  await say()
  await expect(done).rejects.toMatchObject({
    code: 'FOLDER_UNAVAILABLE',
    message: expect.stringMatching(/an older state of it.*partition \d differs; mount it or put it back/),
  })
  expect(database.opened).toBe(1)
})

it('a full volume is waited for, told of as long as it is full, and not opened anew', async () => {
  const { database, processor, say, counted, lines, unwritable } = await start()
  await say()
  await counted(1)
  expect(processor.problems).toEqual([])
  expect(await unwritable()).toBe(0)
  database.refusal = ENOSPC
  await say()
  const told = () => lines.filter((line) => line.includes('store cannot be written')).length
  expect(processor.unfit).toBe(false)
  // The log tells of each partition again and again.
  await vi.waitFor(() => {
    expect(told()).toBeGreaterThan(4)
    expect(processor.problems).toHaveLength(2)
  }, WAIT)
  expect(processor.problems[0]).toMatch(/^partition \d: .* since \d.*Z: No space left on device: free space/)
  expect(await unwritable()).toBe(2)
  await vi.waitFor(() => expect(processor.unfit).toBe(true), WAIT)
  database.refusal = undefined
  await counted(2)
  expect(database.opened).toBe(1)
  await vi.waitFor(() => expect(processor.problems).toEqual([]), WAIT)
  expect(await unwritable()).toBe(0)
})

it.each(['_get', '_del'] as const)(
  'a partition whose store cannot be made yet, at %s, is told of, and taken up when it can',
  async (step) => {
    const { database, processor, say, counted } = await start((made) => {
      made.refuses = step
      made.refusal = ENOSPC
    })
    await say()
    await vi.waitFor(() => expect(processor.problems).toHaveLength(2), WAIT)
    expect(processor.problems[0]).toMatch(/No space left on device: free space/)
    database.refusal = undefined
    await counted(1)
    expect(processor.problems).toEqual([])
  },
)

it('a processor leaves also while it cannot make a store', async () => {
  const { processor, leave } = await start((made) => {
    made.refuses = '_del'
    made.refusal = ENOSPC
  })
  await vi.waitFor(() => expect(processor.problems).toHaveLength(2), WAIT)
  await leave()
  expect(processor.problems).toEqual([])
})
