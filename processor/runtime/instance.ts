import { randomBytes } from 'node:crypto'
import { link, mkdir, open, readFile, rm } from 'node:fs/promises'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { ConfigurationError, reasonOf } from '../contract/errors.ts'
import { INSTANCE_FILE, INSTANCE_NAME } from './environment.ts'

/**
 * The name of the processor whose stores are in `dataDir`: made once, from the host's name and chance, and kept there. So
 * it is stable over restarts, goes where the stores go, and no two folders have the same. Rejects with
 * ConfigurationError FOLDER_UNAVAILABLE.
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

/** A new name instead of one that is lost would leave the stores behind, and nobody would remove them. */
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
  await mkdir(dataDir, { recursive: true })
  const host = hostname().replace(/[^A-Za-z0-9.-]/g, '-')
  const name = `${host.slice(0, 64)}-${randomBytes(4).toString('hex')}`
  const draft = `${file}-${name}`
  await writeThrough(draft, `${name}\n`)
  // Of two processes that start at once on the folder one makes the name, and nobody reads half a name.
  await link(draft, file).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'EEXIST') throw error
  })
  await rm(draft)
  return (await readFile(file, 'utf8')).trim()
}

/** What is in the file is on the disk before its name is: an empty file after a loss of power would name no stores. */
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
