import { chmod, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pino from 'pino'
import { Registry } from 'prom-client'
import { RocksLevel } from 'rocksdb-level'
import { afterEach, beforeEach, expect, it, vi } from 'vitest'
import { ConfigurationError } from '../../processor/contract/errors.ts'
import { partitionOf } from '../../processor/contract/partition.ts'
import { EmbeddedLog } from '../../processor/log/embedded/embedded-log.ts'
import { openDatabase, Processor } from '../../processor/processor.ts'
import type { Database } from '../../processor/store/level-store.ts'
import { said, statusOf } from './workbench.ts'

const PARTITIONS = 4
const DEVICES = Array.from({ length: 60 }, (_, i) => `d${i}`)
const WAIT = { timeout: 20_000, interval: 10 }

let root: string
let log: EmbeddedLog
let members: Map<string, Running>
let lines: string[]
/** Messages appended to each device. */
let sent: number

interface Running {
  readonly processor: Processor
  readonly stopping: AbortController
  readonly done: Promise<void>
}

const logger = pino({}, { write: (line) => lines.push(line) })

function openLog(folder = 'log'): Promise<EmbeddedLog> {
  return EmbeddedLog.open({
    folder: join(root, folder),
    partitions: PARTITIONS,
    logger: pino({ enabled: false }),
    registry: new Registry(),
  })
}

function open(instance: string, opening?: Database): Promise<Processor> {
  const folder = join(root, instance)
  const registry = new Registry()
  const limits = { batchRecords: 50, minCommitIntervalMs: 1 }
  return Processor.open({ log, instance, endpoint: instance, folder, opening, logger, registry, now: Date.now, limits })
}

async function start(instance: string, opening?: Database): Promise<Running> {
  const processor = await open(instance, opening)
  const stopping = new AbortController()
  const done = processor.run(stopping.signal)
  const running = { processor, stopping, done }
  members.set(instance, running)
  return running
}

async function stop(instance: string): Promise<void> {
  const { processor, stopping, done } = members.get(instance) as Running
  members.delete(instance)
  stopping.abort()
  await done
  await processor[Symbol.asyncDispose]()
}

/** Flips a byte of what the tables of the stores hold: in a text that stands in them as it is. */
async function damage(instance: string, text: string): Promise<void> {
  const folder = join(root, instance)
  for (const name of await readdir(folder)) {
    if (!name.endsWith('.sst')) continue
    const bytes = await readFile(join(folder, name))
    const at = bytes.lastIndexOf(text)
    if (at < 0) continue
    bytes[at] = (bytes[at] as number) ^ 0xff
    await writeFile(join(folder, name), bytes)
    return
  }
  throw new Error(`no table holds ${text}`)
}

/** Reads all there is. Rejects where a table is damaged. */
async function compacted(instance: string): Promise<void> {
  const db = new RocksLevel(join(root, instance))
  try {
    await db.compactRange()
  } finally {
    await db.close()
  }
}

/** Says something for every device, and waits until the log has it. */
async function say(rounds = 1): Promise<void> {
  for (let i = 0; i < rounds; i++) {
    sent++
    await log.append(
      'telemetry',
      DEVICES.map((id) => said(id, { x: sent }, Date.now())),
    )
  }
}

/** Says on and on until `done`. */
async function sayUntil(done: Promise<unknown>): Promise<void> {
  const going = new AbortController()
  const ended = done.finally(() => going.abort())
  while (!going.signal.aborted) {
    await say()
    await new Promise((resolve) => setImmediate(resolve))
  }
  await ended
}

/** Asks the owner of each partition for its devices, until each has every message exactly once. */
async function everythingCounted(): Promise<void> {
  await vi.waitFor(async () => {
    const owners = await log.owners()
    for (const id of DEVICES) {
      const partition = partitionOf(id, PARTITIONS)
      const owner = members.get(owners.get(partition)?.active?.instance ?? '')
      if (owner === undefined) throw new Error(`partition ${partition} has no owner`)
      const [answer] = await owner.processor.reader.getMany(partition, [id])
      const { messages } = statusOf(answer).counters
      if ((messages ?? 0) > sent) throw new RangeError(`${id} counted ${messages} of ${sent}`)
      expect(messages).toBe(sent)
      expect(answer?.freshness.servedBy).toBe('owner')
    }
  }, WAIT)
}

/** Has 'one' count something for every device, and stop. */
async function leaveStores(): Promise<void> {
  await start('one')
  await say()
  await everythingCounted()
  await stop('one')
}

async function roles(): Promise<Record<string, string[]>> {
  const all: Record<string, string[]> = {}
  for (const [name, { processor }] of members) {
    const copies = await processor.reader.copies()
    all[name] = copies.map(({ partition, role, state }) => `${role} ${partition} ${state}`).sort()
  }
  return all
}

/** Resolves when `owned` partitions each are owned, every one with a standby, all running. */
async function balanced(owned: Record<string, number>): Promise<void> {
  await vi.waitFor(async () => {
    const all = await roles()
    for (const [name, count] of Object.entries(owned)) {
      expect(all[name]?.filter((role) => /owner . running/.test(role))).toHaveLength(count)
    }
    const standbys = Object.values(all)
      .flat()
      .filter((role) => /standby . running/.test(role))
    expect(standbys).toHaveLength(members.size > 1 ? PARTITIONS : 0)
  }, WAIT)
}

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'tidemark-processor-'))
  members = new Map()
  lines = []
  sent = 0
  log = await openLog()
})

afterEach(async () => {
  for (const name of members.keys()) await stop(name)
  await log[Symbol.asyncDispose]()
  await rm(root, { recursive: true })
})

it('counts every record once while members join and leave under load', async () => {
  await start('one')
  await balanced({ one: 4 })
  const changes = async () => {
    await start('two')
    await balanced({ one: 2, two: 2 })
    await start('three')
    await vi.waitFor(async () => expect((await roles()).three?.length).toBeGreaterThan(0), WAIT)
    await stop('one')
    await balanced({ two: 2, three: 2 })
    await stop('three')
    await balanced({ two: 4 })
  }
  await sayUntil(changes())
  await everythingCounted()
})

it('counts every record once when a member is taken for dead, and goes on', async () => {
  await start('one')
  await start('two')
  await balanced({ one: 2, two: 2 })
  const changes = async () => {
    log.evict('one')
    await vi.waitFor(() => expect(lines.join()).toContain('CLAIM_FENCED'), WAIT)
    await balanced({ one: 2, two: 2 })
  }
  await sayUntil(changes())
  await everythingCounted()
})

it('promotes a standby without reading the changelog from the start, and keeps answering', async () => {
  await start('one')
  await start('two')
  await balanced({ one: 2, two: 2 })
  await say(5)
  await everythingCounted()
  const { processor } = members.get('two') as Running
  await vi.waitFor(async () => {
    const standbys = (await processor.reader.copies()).filter(({ role }) => role === 'standby')
    expect(standbys).toHaveLength(2)
    for (const { partition: index, offset } of standbys) {
      expect(offset).toBe((await log.bounds({ topic: 'telemetry', index })).end)
    }
  }, WAIT)
  lines = []
  await stop('one')
  await balanced({ two: 4 })
  await say()
  await everythingCounted()
  const plans = lines.filter((line) => line.includes('restoring from')).map((line) => JSON.parse(line))
  expect(plans.map(({ plan }) => plan)).toEqual(['resume', 'resume'])
  for (const { from, to } of plans) expect(from).toBe(to)
})

it('restores a wiped store folder, and resumes a kept one', async () => {
  await start('one')
  await say(5)
  await everythingCounted()
  await stop('one')
  lines = []
  await start('one')
  await everythingCounted()
  expect(lines.filter((line) => line.includes('"plan":"resume"'))).toHaveLength(4)
  await stop('one')
  await rm(join(root, 'one'), { recursive: true })
  lines = []
  await say()
  await start('one')
  await everythingCounted()
  expect(lines.filter((line) => line.includes('"plan":"fresh"'))).toHaveLength(4)
  const { processor } = members.get('one') as Running
  const devices = (await processor.reader.copies()).reduce((sum, copy) => sum + (copy.devices ?? 0), 0)
  expect(devices).toBe(DEVICES.length)
})

it('wipes the store of another log, and says why', async () => {
  await start('one')
  await say(2)
  await everythingCounted()
  await stop('one')
  await log[Symbol.asyncDispose]()
  log = await openLog('another')
  sent = 0
  await say()
  await start('one')
  await everythingCounted()
  expect(lines.filter((line) => line.includes('it belongs to another log'))).toHaveLength(4)
})

it('tells of the copies on disk before it has a role', async () => {
  await leaveStores()
  await using processor = await open('one')
  expect([...processor.positions().keys()].toSorted((a, b) => a - b)).toEqual([0, 1, 2, 3])
  expect(await processor.reader.copies()).toEqual([])
})

it('refuses a folder that is in use, naming it and its holder', async () => {
  await start('one')
  const refusal = await open('one').catch((error: unknown) => error)
  expect(refusal).toBeInstanceOf(ConfigurationError)
  expect(refusal).toMatchObject({ code: 'STORE_LOCKED' })
  expect(String(refusal)).toContain(join(root, 'one'))
  expect(String(refusal)).toContain(String(process.pid))
})

it('refuses a folder that cannot be used, naming it', async () => {
  await writeFile(join(root, 'file'), '')
  await expect(open('file')).rejects.toMatchObject({ code: 'FOLDER_UNAVAILABLE' })
  await expect(open('file/below')).rejects.toThrow(join(root, 'file/below'))
  if (process.getuid?.() === 0) return
  await chmod(root, 0o500)
  await expect(open('new')).rejects.toMatchObject({ code: 'FOLDER_UNAVAILABLE' })
  await chmod(root, 0o700)
})

it.each([
  ['database is', () => writeFile(join(root, 'one', 'CURRENT'), 'nonsense\n')],
  ['checkpoints are', () => damage('one', '"changelog":')],
])('starts anew on a folder whose %s damaged', async (_, harm) => {
  await leaveStores()
  await harm()
  await start('one')
  await say()
  await everythingCounted()
  expect(lines.join()).toContain('store folder wiped')
})

it('starts anew after damage that had RocksDB refuse all writes, which no wipe of a store mends', async () => {
  await leaveStores()
  await damage('one', '"deviceId":"d7"')
  const opening = openDatabase(join(root, 'one')) as RocksLevel<string, Buffer>
  const { processor, done } = await start('one', opening)
  members.delete('one')
  const ended = expect(done).rejects.toMatchObject({ code: 'STORE_CORRUPTED' })
  await opening.compactRange().catch(() => {})
  await say()
  await ended
  await processor[Symbol.asyncDispose]()
  lines = []
  await start('one')
  await everythingCounted()
  await stop('one')
  expect(lines.filter((line) => line.includes('"plan":"fresh"'))).toHaveLength(4)
  await compacted('one')
})

it('starts anew after a read that met damage, once', async () => {
  await leaveStores()
  await damage('one', '"deviceId":"d7"')
  await start('one')
  const { reader } = (members.get('one') as Running).processor
  const partition = partitionOf('d7', PARTITIONS)
  await vi.waitFor(async () => {
    const read = reader.getMany(partition, ['d7'])
    await expect(read).rejects.toMatchObject({ code: 'STORE_UNAVAILABLE', cause: { code: 'STORE_CORRUPTED' } })
  }, WAIT)
  expect(lines.join()).toContain('the store folder is damaged')
  await stop('one')
  lines = []
  await start('one')
  await everythingCounted()
  await stop('one')
  expect(lines.join()).toContain('store folder wiped')
  await compacted('one')
  lines = []
  await start('one')
  await everythingCounted()
  expect(lines.join()).not.toContain('wiped')
})
