import { randomBytes } from 'node:crypto'
import { link, mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { ConfigurationError } from './contract/errors.ts'

/**
 * The name of the processor whose stores are in `dataDir`: made once, from the host's name and chance, and kept there. So
 * it is stable over restarts, goes where the stores go, and no two folders have the same. Rejects with
 * ConfigurationError FOLDER_UNAVAILABLE.
 */
export async function instanceOf(dataDir: string): Promise<string> {
  const file = join(dataDir, 'instance-id')
  try {
    return (await readIfThere(file)) ?? (await make(dataDir, file))
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error)
    const way = 'make DATA_DIR a folder that this user can write, or set INSTANCE_ID'
    throw new ConfigurationError('FOLDER_UNAVAILABLE', `${file} cannot be made: ${reason}; ${way}`, error)
  }
}

async function make(dataDir: string, file: string): Promise<string> {
  await mkdir(dataDir, { recursive: true })
  const host = hostname().replace(/[^A-Za-z0-9.-]/g, '-')
  const name = `${host.slice(0, 64)}-${randomBytes(4).toString('hex')}`
  const draft = `${file}-${name}`
  await writeFile(draft, `${name}\n`)
  // Of two processes that start at once on the folder one makes the name, and nobody reads half a name.
  await link(draft, file).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'EEXIST') throw error
  })
  await rm(draft)
  return (await readFile(file, 'utf8')).trim()
}

async function readIfThere(file: string): Promise<string | undefined> {
  try {
    return (await readFile(file, 'utf8')).trim()
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
}
