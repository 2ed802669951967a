import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pino } from 'pino'
import { Registry } from 'prom-client'
import { EmbeddedLog } from '../../processor/log/embedded/embedded-log.ts'
import { logContract } from './log.ts'
import type { HarnessOptions, LogHarness } from './log-harness.ts'

async function open({ partitions, standbys }: HarnessOptions): Promise<LogHarness> {
  const folder = await mkdtemp(join(tmpdir(), 'tidemark-log-'))
  const logger = pino({ level: 'silent' })
  const openLog = () => EmbeddedLog.open({ folder, partitions, standbys, logger, registry: new Registry() })
  let log = await openLog()
  return {
    get log() {
      return log
    },
    connect: async () => log,
    crash: async (_, member) => log.evict(member.instance, { dead: true }),
    evict: async (_, member) => log.evict(member.instance),
    async reopen() {
      await log[Symbol.asyncDispose]()
      log = await openLog()
      return log
    },
    async [Symbol.asyncDispose]() {
      await log[Symbol.asyncDispose]()
      await rm(folder, { recursive: true })
    },
  }
}

logContract({ name: 'embedded', open, patienceMs: 10_000 })
