import { access, mkdir, readdir, readFile, stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { RocksLevelError } from './errors.ts'
import { describeHolder, lockHolder } from './lock.ts'

/**
 * Makes a folder and those above it. Not mkdir's own `recursive`, which never returns where the system answers ENOENT
 * for a folder whose parent exists (under /proc, for one).
 */
export async function makeFolder(path: string): Promise<void> {
  try {
    await makeWithParents(path)
  } catch (error) {
    const text = error instanceof Error ? error.message : String(error)
    const code = /ENOSPC|EDQUOT/.test(text) ? 'LEVEL_NO_SPACE' : 'LEVEL_IO_ERROR'
    throw new RocksLevelError(code, `Cannot make the folder ${path}: ${text}`, error)
  }
}

/** Whether the folder holds a database: RocksDB's CURRENT names its newest manifest. */
export function holdsDatabase(path: string): Promise<boolean> {
  return access(join(path, 'CURRENT')).then(
    () => true,
    () => false,
  )
}

/**
 * Rejects with LEVEL_CORRUPTION when a folder without CURRENT has files that RocksDB makes after it: taken for an empty one, it
 * would be given a new database, which removes them. Of one that is held its holder judges, or makes the database now.
 */
export async function refuseRemains(path: string): Promise<void> {
  const names = await readdir(path).catch(() => [])
  const left = names.find((name) => /^\d+\.(sst|log)$/.test(name))
  if (left === undefined) return
  const isHeld = (await lockHolder(path)) !== undefined
  // Where nobody tells who holds it: CURRENT comes before those files.
  if (isHeld || (await holdsDatabase(path))) {
    throw new RocksLevelError('LEVEL_LOCKED', `The database ${path} is held by ${await describeHolder(path)}`)
  }
  throw new RocksLevelError('LEVEL_CORRUPTION', `The database ${path} has lost its file CURRENT, and has ${left} still`)
}

/** What RocksDB wrote into the folder when it made the database; undefined when that is not there. Rejects when nobody can tell. */
export async function identityOf(path: string): Promise<string | undefined> {
  try {
    return await readFile(join(path, 'IDENTITY'), 'utf8')
  } catch (error) {
    const { code = '' } = error as NodeJS.ErrnoException
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined
    throw error
  }
}

/** Changes whenever table files or logs come and go: every such change is appended to the manifest before any is removed. */
export async function manifestOf(path: string): Promise<string> {
  const name = (await readFile(join(path, 'CURRENT'), 'utf8')).trim()
  const { size } = await stat(join(path, name))
  return `${name}:${size}`
}

async function makeWithParents(path: string): Promise<void> {
  const problem = await make(path)
  if (problem === undefined) return
  if (problem.code !== 'ENOENT' || dirname(path) === path) throw problem
  await makeWithParents(dirname(path))
  const still = await make(path)
  if (still !== undefined) throw still
}

async function make(path: string): Promise<NodeJS.ErrnoException | undefined> {
  try {
    await mkdir(path)
    return undefined
  } catch (error) {
    const problem = error as NodeJS.ErrnoException
    const exists = problem.code === 'EEXIST' && (await stat(path)).isDirectory()
    return exists ? undefined : problem
  }
}
