import { randomBytes } from 'node:crypto'
import { link, mkdir, open, readFile, rm } from 'node:fs/promises'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { ConfigurationError, reasonOf } from '../contract/errors.ts'
import { INSTANCE_FILE, INSTANCE_NAME } from './environment.ts'

/**
 * Reads the name of the processor whose stores are in `dataDir`. The first call makes it of the host's name and random
 * bytes, and keeps it in that folder, so it moves with the stores. Rejects with ConfigurationError FOLDER_UNAVAILABLE.
 */
export async function instanceOf(dataDir: string): Promise<string> {
  const file = join(dataDir, INSTANCE_FILE)
  try {
    return checked((await readIfThere(file)) ?? (await make(dataDir, file)), file)
  } catch (error) {
    if (error instanceof ConfigurationError) throw error
    const way = 'make DATA_DIR a folder that this user can write, with free space, or set INSTANCE_ID'
    throw new ConfigurationError('FOLDER_UNAVAILABLE', `${file} cannot be made: ${reasonOf(error)}; ${way}`, error)
  }
}

/** A damaged name is refused: a new one would leave the stores behind, and nobody would remove them. */
function checked(name: string, file: string): string {
  if (INSTANCE_NAME.test(name)) return name
  const way =
    'write the name of the folder beside it that holds the stores into it, or set INSTANCE_ID to that; ' +
    'without such a folder remove the file, and a new name is made'
  throw new ConfigurationError(
    'FOLDER_UNAVAILABLE',
    `${file} holds ${JSON.stringify(name.slice(0, 100))}, which is no name of a processor: ${way}`,
  )
}

async function make(dataDir: string, file: string): Promise<string> {
  await mkdir(dataDir, { recursive: true, mode: 0o700 })
  const host = hostname().replace(/[^A-Za-z0-9.-]/g, '-')
  const name = `${host.slice(0, 64)}-${randomBytes(4).toString('hex')}`
  const draft = `${file}-${name}`
  await writeThrough(draft, `${name}\n`)
  // When two processes start at once, only one makes the name; link() shows it whole or not at all.
  await link(draft, file).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'EEXIST') throw error
  })
  await rm(draft)
  return (await readFile(file, 'utf8')).trim()
}

/** Syncs the contents before the file gets its name: after a power loss an empty file would name no stores. */
async function writeThrough(file: string, text: string): Promise<void> {
  await using handle = await open(file, 'w')
  await handle.writeFile(text)
  await handle.sync()
}

async function readIfThere(file: string): Promise<string | undefined> {
  try {
    return (await readFile(file, 'utf8')).trim()
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
}
