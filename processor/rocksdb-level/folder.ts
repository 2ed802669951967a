import { access, mkdir, readdir, readFile, readlink, realpath, stat, writeFile } from 'node:fs/promises'
import { hostname } from 'node:os'
import { dirname, join } from 'node:path'
import { RocksLevelError } from './errors.ts'

/**
 * Says who holds a database folder. RocksDB's own lock (fcntl on LOCK) decides who may open; this only puts a name to
 * the holder. The LOCK file itself must never be opened here: closing any descriptor of it would drop the lock.
 */
export async function describeHolder(path: string): Promise<string> {
  const pid = await lockHolder(path)
  if (pid !== undefined) return nameOf(pid, undefined)

  const owner = await readOwner(path)
  // Not every holder leaves its name, so the name of a dead process is an old one.
  const stale = owner !== undefined && owner.host === hostname() && !isAlive(owner.pid)
  return owner === undefined || stale ? 'another process' : nameOf(owner.pid, owner.host)
}

/**
 * Names the process that holds a folder although RocksDB's lock is free, because its LOCK file was removed. Undefined:
 * nobody is known to. Two holders would both write, and each would remove the other's files. Linux shows what a process
 * has open; for another user's process, and elsewhere, nobody can tell.
 */
export async function describeHiddenHolder(path: string): Promise<string | undefined> {
  const owner = await readOwner(path)
  if (owner === undefined || owner.pid === process.pid || owner.host !== hostname() || !isAlive(owner.pid))
    return undefined
  const held = `${join(await realpath(path), 'LOCK')} (deleted)`
  const open = `/proc/${owner.pid}/fd`
  for (const file of await readdir(open).catch(() => [])) {
    const target = await readlink(join(open, file)).catch(() => undefined)
    if (target === held) return nameOf(owner.pid, owner.host)
  }
  return undefined
}

/**
 * Leaves our name in the folder, for systems without /proc/locks. A full disk must not stop an open, so this may fail.
 */
export async function writeOwner(path: string): Promise<boolean> {
  const text = JSON.stringify({ pid: process.pid, host: hostname(), since: new Date().toISOString() })
  return writeFile(join(path, 'OWNER'), `${text}\n`).then(
    () => true,
    () => false,
  )
}

function nameOf(pid: number, host: string | undefined): string {
  const here = host === undefined || host === hostname()
  if (here && pid === process.pid) return `this process (pid ${pid})`
  return here ? `process ${pid}` : `process ${pid} on host ${host}`
}

/** Linux names the holder of every file lock, by inode. A pid of 0 or less belongs to another pid namespace. */
export async function lockHolder(path: string): Promise<number | undefined> {
  const [locks, lock] = await Promise.all([
    readFile('/proc/locks', 'utf8').catch(() => ''),
    stat(join(path, 'LOCK')).catch(() => undefined),
  ])
  if (lock === undefined) return undefined

  const candidates: { pid: number; device: string }[] = []
  for (const line of locks.split('\n')) {
    // A line reads: 1: POSIX ADVISORY WRITE 4711 fe:00:1835017 0 EOF
    const match = /^\d+: \S+\s+\S+\s+WRITE (-?\d+) ([0-9a-f]+:[0-9a-f]+):(\d+) /.exec(line)
    if (match !== null && match[3] === String(lock.ino)) {
      candidates.push({ pid: Number(match[1]), device: match[2] ?? '' })
    }
  }
  // Some file systems show stat() another device than the lock table, so the device only decides between candidates.
  const same = candidates.find(({ device }) => device === deviceOf(lock.dev)) ?? candidates[0]
  return same !== undefined && same.pid > 0 ? same.pid : undefined
}

function deviceOf(dev: number): string {
  const major = (dev >>> 8) & 0xfff
  const minor = (dev & 0xff) | ((dev >>> 12) & 0xfff00)
  return `${major.toString(16).padStart(2, '0')}:${minor.toString(16).padStart(2, '0')}`
}

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0)
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}

async function readOwner(path: string): Promise<{ pid: number; host: string } | undefined> {
  const text = await readFile(join(path, 'OWNER'), 'utf8').catch(() => '')
  const match = /^\{"pid":(\d+),"host":"([^"]*)"/.exec(text)
  return match === null ? undefined : { pid: Number(match[1]), host: match[2] ?? '' }
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

/** Every database has the file CURRENT, which names its newest manifest. */
export function holdsDatabase(path: string): Promise<boolean> {
  return access(join(path, 'CURRENT')).then(
    () => true,
    () => false,
  )
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
  const isHeld = (await lockHolder(path)) !== undefined
  // RocksDB makes CURRENT before those files, so this finds a new holder where the system cannot name it.
  if (isHeld || (await holdsDatabase(path))) {
    throw new RocksLevelError('LEVEL_LOCKED', `The database ${path} is held by ${await describeHolder(path)}`)
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
    await mkdir(path)
    return undefined
  } catch (error) {
    const problem = error as NodeJS.ErrnoException
    const exists = problem.code === 'EEXIST' && (await stat(path)).isDirectory()
    return exists ? undefined : problem
  }
}
