import { lstat, mkdir, mkdtemp, readdir, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pino from 'pino'
import { Registry } from 'prom-client'
import { expect, onTestFinished, test } from 'vitest'
import { EmbeddedLog } from '../../../processor/log/embedded/embedded-log.ts'
import { Processor } from '../../../processor/processor.ts'
import { isMarkedDamaged, markDamaged } from '../../../processor/store/damage.ts'

test.each<[string, (folder: string) => Promise<void>]>([
  ['is damaged', (folder) => writeFile(join(folder, 'CURRENT'), 'nonsense\n')],
  [
    'lacks what names its files',
    async (folder) => {
      await rm(join(folder, 'CURRENT'))
      await writeFile(join(folder, '000099.sst'), '')
    },
  ],
  [
    'lacks the list of its files',
    async (folder) => {
      for (const name of await readdir(folder)) if (name.startsWith('MANIFEST-')) await rm(join(folder, name))
    },
  ],
  ['was found damaged', async (folder) => markDamaged(folder, new Error('a block does not fit its checksum'))],
])('a start on a folder that %s wipes what is in it, and leaves a link to a volume what it is', async (_, damage) => {
  const root = await mkdtemp(join(tmpdir(), 'tidemark-damaged-'))
  onTestFinished(() => rm(root, { recursive: true }))
  const logger = pino({ enabled: false })
  await using log = await EmbeddedLog.open({
    folder: join(root, 'log'),
    partitions: 1,
    logger,
    registry: new Registry(),
  })
  const [volume, folder] = [join(root, 'volume'), join(root, 'one')]
  await mkdir(volume)
  await symlink(volume, folder)
  const open = () => {
    const named = { instance: 'one', endpoint: 'one', folder }
    return Processor.open({ log, ...named, logger, registry: new Registry(), now: Date.now })
  }
  await (await open())[Symbol.asyncDispose]()
  await damage(volume)
  await writeFile(join(volume, 'left.sst'), '')
  await (await open())[Symbol.asyncDispose]()
  expect((await lstat(folder)).isSymbolicLink()).toBe(true)
  expect(await readdir(volume)).toContain('CURRENT')
  expect(await readdir(volume)).not.toContain('left.sst')
  expect(isMarkedDamaged(folder)).toBe(false)
})
