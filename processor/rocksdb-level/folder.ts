import { access, mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises'
import { hostname } from 'node:os'
import { dirname, join } from 'node:path'
import { RocksLevelError } from './errors.ts'

/**
 * Says who holds a database folder. RocksDB's own lock (fcntl on LOCK) decides who may open; this only puts a name to
 * the holder, which it left in the file OWNER.
 */
export async function describeHolder(path: string): Promise<string> {
  return (await ownerOf(path)) ?? 'another process'
}

/**
 * Names the live process that left its name in a folder without a LOCK file: RocksDB would let a second one in, and each
 * would remove the other's files. Undefined: there is none.
 */
export async function describeHiddenHolder(path: string): Promise<string | undefined> {
  return (await isThere(join(path, 'LOCK'))) ? undefined : otherOwner(path)
}

/** Leaves out this process: it may have left its name before, and in a container every process is number 1. */
async function otherOwner(path: string): Promise<string | undefined> {
  const owner = await ownerOf(path)
  return owner === thisProcess ? undefined : owner
}

const thisProcess = `this process (pid ${process.pid})`

/** Undefined: no name was left, or that of a dead process. */
async function ownerOf(path: string): Promise<string | undefined> {
  const text = await readFile(join(path, 'OWNER'), 'utf8').catch(() => '')
  const match = /^\{"pid":(\d+),"host":"([^"]*)"/.exec(text)
  if (match === null) return undefined
  const pid = Number(match[1])
  if (match[2] !== hostname()) return `process ${pid} on host ${match[2]}`
  if (pid === process.pid) return thisProcess
  return isAlive(pid) ? `process ${pid}` : undefined
}

/**
 * Leaves our name in the folder. A full disk must not stop an open, so this may fail.
 */
export async function writeOwner(path: string): Promise<boolean> {
  const text = JSON.stringify({ pid: process.pid, host: hostname(), since: new Date().toISOString() })
  return writeFile(join(path, 'OWNER'), `${text}\n`).then(
    () => true,
    () => false,
  )
}

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0)
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}

/**
 * Makes a folder and its parents. mkdir's own `recursive` never returns when the system answers ENOENT for a folder
 * whose parent exists, as under /proc.
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

function isThere(file: string): Promise<boolean> {
  return access(file).then(
    () => true,
    () => false,
  )
}

/** Every database has the file CURRENT, which names its newest manifest. */
export function holdsDatabase(path: string): Promise<boolean> {
  return isThere(join(path, 'CURRENT'))
}

/**
 * Rejects with LEVEL_CORRUPTION when a folder without CURRENT has files that RocksDB makes after it. RocksDB would take
 * the folder for an empty one, make a new database, and remove those files. Rejects with LEVEL_LOCKED when another
 * process holds the folder: that one may be making the database now.
 */
export async function refuseRemains(path: string): Promise<void> {
  const names = await readdir(path).catch(() => [])
  const left = names.find((name) => /^\d+\.(sst|log)$/.test(name))
  if (left === undefined) return
  const holder = await otherOwner(path)
  // RocksDB makes CURRENT before those files: another process may have made the database just now.
  if (holder !== undefined || (await holdsDatabase(path))) {
    throw new RocksLevelError('LEVEL_LOCKED', `The database ${path} is held by ${holder ?? 'another process'}`)
  }
  throw new RocksLevelError('LEVEL_CORRUPTION', `The database ${path} has lost its file CURRENT, and has ${left} still`)
}

/**
 * Reads the identity that RocksDB gave the database when it made it; undefined when it is missing. Rejects when it
 * cannot be read.
 */
export async function identityOf(path: string): Promise<string | undefined> {
  try {
    return await readFile(join(path, 'IDENTITY'), 'utf8')
  } catch (error) {
    const { code = '' } = error as NodeJS.ErrnoException
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined
    throw error
  }
}

/**
 * Changes whenever table files or logs come and go: RocksDB appends each such change to the manifest before it removes
 * a file.
 */
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
    // What devices sent is nobody else's on this machine.
    await mkdir(path, { mode: 0o700 })
    return undefined
  } catch (error) {
    const problem = error as NodeJS.ErrnoException
    const exists = problem.code === 'EEXIST' && (await stat(path)).isDirectory()
    return exists ? undefined : problem
  }
}
