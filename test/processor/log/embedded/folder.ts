import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pino } from 'pino'
import { Registry } from 'prom-client'
import { RocksLevel } from 'rocksdb-level'
import { onTestFinished } from 'vitest'
import { EmbeddedLog, type EmbeddedLogOptions } from '../../../../processor/log/embedded/embedded-log.ts'
import type { LogRecord, Topic } from '../../../../processor/log/log.ts'
import { read } from '../../../contract/log-member.ts'

/** A folder for one test. */
export async function folder(): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'tidemark-log-'))
  onTestFinished(() => rm(path, { recursive: true, force: true }))
  return path
}

/** A log for one test, closed after it. */
export async function openLog(path: string, options: Partial<EmbeddedLogOptions> = {}): Promise<EmbeddedLog> {
  const logger = pino({ level: 'silent' })
  const log = await EmbeddedLog.open({ folder: path, partitions: 1, logger, registry: new Registry(), ...options })
  onTestFinished(() => log[Symbol.asyncDispose]())
  return log
}

/** All that a partition holds now. */
export async function dump(log: EmbeddedLog, topic: Topic, index = 0): Promise<LogRecord[]> {
  const { start, end } = await log.bounds({ topic, index })
  return read(log, topic, index, start, end)
}

/** A database whose writes, those that are chosen, fail although they are on the disk. */
export function failingDatabase() {
  let fails: ((keys: readonly Buffer[]) => boolean) | undefined
  let failure = 'LEVEL_NO_SPACE'
  let whenClosed: (() => Promise<void>) | undefined
  class Failing extends RocksLevel<Buffer, Buffer> {
    override async _batch(...of: Parameters<RocksLevel['_batch']>): Promise<void> {
      await super._batch(...of)
      if (fails?.(of[0].map(({ key }) => key)) !== true) return
      throw Object.assign(new Error('it is on the disk all the same'), { code: failure })
    }

    override async _close(): Promise<void> {
      await super._close()
      await whenClosed?.()
    }
  }
  return {
    database: (path: string) => new Failing(path, { keyEncoding: 'buffer', valueEncoding: 'buffer' }),
    failWrites: (which: typeof fails, code = 'LEVEL_NO_SPACE') => {
      fails = which
      failure = code
    },
    /** Does so at the next closing of a database. */
    onceClosed: (act: () => Promise<void>) => {
      whenClosed = () => {
        whenClosed = undefined
        return act()
      }
    },
  }
}
