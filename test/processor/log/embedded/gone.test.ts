import { access, cp, readdir, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test, vi } from 'vitest'
import type { EmbeddedLog } from '../../../../processor/log/embedded/embedded-log.ts'
import { numbered, text } from '../../../contract/log-records.ts'
import { dump, failingDatabase, folder, openLog } from './folder.ts'

const WAIT = { timeout: 20_000, interval: 10 }
const REFUSED = { name: 'RetryableError', code: 'LOG_UNAVAILABLE' }

/** A log with ten records, and a way to have its next write fail, and another folder at its path when it is opened anew. */
async function start() {
  const path = join(await folder(), 'log')
  const away = `${path}-away`
  const { database, failWrites, onceClosed } = failingDatabase()
  const log = await openLog(path, { database })
  await log.append('telemetry', numbered(0, 10))
  const fail = async () => {
    failWrites(() => true, 'LEVEL_IO_ERROR')
    await expect(log.append('telemetry', numbered(10, 1))).rejects.toMatchObject(REFUSED)
    failWrites(undefined)
  }
  /** Not before it is closed: RocksDB writes by the path as long as it is open. */
  const replace = (by: string | undefined) => {
    onceClosed(async () => {
      await rename(path, away)
      if (by !== undefined) await rename(by, path)
    })
  }
  /** Puts the folder back. */
  const restore = async (other?: string) => {
    if (other !== undefined) await rename(path, other)
    await rename(away, path)
  }
  return { path, log, fail, replace, restore }
}

/** It takes writes again, and has all that was acknowledged. What was refused may be there, too. */
async function whole(log: EmbeddedLog, count: number): Promise<void> {
  await vi.waitFor(() => expect(log.fault).toBeUndefined(), WAIT)
  await log.append('telemetry', numbered(100, 1))
  const records = (await dump(log, 'telemetry')).map(text)
  expect(records.slice(0, count)).toEqual(Array.from({ length: count }, (_, i) => `${i}`))
  expect(records.at(-1)).toBe('100')
}

test('a log whose folder is gone waits for it, and is no empty one', async () => {
  const { path, log, fail, replace, restore } = await start()
  replace(undefined)
  await fail()
  await vi.waitFor(
    () => expect(log.fault?.message).toMatch(`the log in ${path} is gone; mount it or put it back`),
    WAIT,
  )
  await expect(access(path)).rejects.toMatchObject({ code: 'ENOENT' })
  await expect(log.append('telemetry', numbered(10, 1))).rejects.toMatchObject(REFUSED)
  expect(await log.bounds({ topic: 'telemetry', index: 0 })).toEqual({ start: 0, end: 10 })
  await restore()
  await whole(log, 10)
})

test.each<[string, (path: string) => Promise<void>]>([
  ['was removed', (path) => rm(path, { recursive: true })],
  ['is empty', (path) => empty(path)],
  ['is another one', (path) => replaceByAnother(path)],
])('a log whose folder %s acknowledges nothing more, though its open files still take all', async (_, lose) => {
  const path = join(await folder(), 'log')
  const log = await openLog(path)
  await log.append('telemetry', numbered(0, 10))
  await lose(path)
  await vi.waitFor(() => expect(log.fault?.message).toMatch(`the log in ${path}`), WAIT)
  await expect(log.append('telemetry', numbered(10, 1))).rejects.toMatchObject(REFUSED)
})

async function empty(path: string): Promise<void> {
  for (const name of await readdir(path)) await rm(join(path, name))
}

async function replaceByAnother(path: string): Promise<void> {
  await (await openLog(`${path}-other`))[Symbol.asyncDispose]()
  await rename(path, `${path}-away`)
  await rename(`${path}-other`, path)
}

test('a log in whose place there is another one leaves that alone, and waits for its own', async () => {
  const { path, log, fail, replace, restore } = await start()
  const other = `${path}-other`
  const foreign = await openLog(other)
  await foreign.append('telemetry', numbered(50, 20))
  await foreign[Symbol.asyncDispose]()
  replace(other)
  await fail()
  await vi.waitFor(() => expect(log.fault?.message).toMatch(`the log in ${path} is not there: another log`), WAIT)
  await expect(log.append('telemetry', numbered(10, 1))).rejects.toMatchObject(REFUSED)
  await restore(other)
  await whole(log, 10)
  const kept = await dump(await openLog(other), 'telemetry')
  expect(kept.map(text)).toEqual(Array.from({ length: 20 }, (_, i) => `${50 + i}`))
})

test('a log in whose place there is an older state of it does not go on without what it has acknowledged', async () => {
  const { path, log, fail, replace, restore } = await start()
  const older = `${path}-older`
  await cp(path, older, { recursive: true })
  await log.append('telemetry', numbered(10, 10))
  replace(older)
  await fail()
  await vi.waitFor(() => expect(log.fault?.message).toMatch(/or an older state of it/), WAIT)
  expect(await log.bounds({ topic: 'telemetry', index: 0 })).toEqual({ start: 0, end: 20 })
  await restore(older)
  await whole(log, 20)
})

test('while the folder is gone, readers that are told to end do, and the log can be closed', async () => {
  const { log, fail, replace } = await start()
  replace(undefined)
  await fail()
  await vi.waitFor(() => expect(log.fault?.message).toMatch('is gone'), WAIT)
  const follow = (signal: AbortSignal) => {
    const limits = { maxRecords: 10, maxBytes: 1000 }
    return log.follow({ topic: 'telemetry', index: 0 }, 0, limits, signal)[Symbol.asyncIterator]().next()
  }
  const stopping = new AbortController()
  const stopped = follow(stopping.signal)
  const waiting = expect(follow(new AbortController().signal)).rejects.toMatchObject({ code: 'LOG_CLOSED' })
  const tidied = expect(log.tidy()).rejects.toMatchObject({ code: 'LOG_CLOSED' })
  // All of them wait for the database by then.
  await new Promise((resolve) => setImmediate(resolve))
  stopping.abort()
  expect(await stopped).toEqual({ done: true, value: undefined })
  await log[Symbol.asyncDispose]()
  await Promise.all([waiting, tidied])
})
