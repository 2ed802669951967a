import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdir, readdir, rename } from 'node:fs/promises'
import { homedir } from 'node:os'
import { dirname, join } from 'node:path'
import { ConfigurationError } from '../../processor/contract/errors.ts'
import { endsWithUs, removeFolder, temporaryFolder } from '../program.ts'

/** As pom.xml has it. */
export const KAFKA_VERSION = '4.3.1'
const MIN_JAVA = 17
const ARCHIVE = 'classes.jsa'

/** The folder of Kafka's jars; the first call has Maven fetch them (about 55 MB). */
function jars(): Promise<string> {
  return cachedFolder(`kafka-${KAFKA_VERSION}`, async (unfinished) => {
    const pom = join(import.meta.dirname, 'pom.xml')
    const copy = ['dependency:copy-dependencies', `-DoutputDirectory=${unfinished}`]
    try {
      await run('mvn', ['--batch-mode', '--quiet', '--file', pom, ...copy])
    } catch (error) {
      if (error instanceof ConfigurationError) throw error
      const way = 'mvn must reach a Maven repository (~/.m2/settings.xml may name one)'
      throw new ConfigurationError(
        'INVALID_CONFIGURATION',
        `Kafka cannot be fetched: ${way}: ${(error as Error).message}`,
        error,
      )
    }
    if ((await readdir(unfinished)).length === 0) throw new Error(`mvn copied no jars to ${unfinished}`)
  })
}

function cachePath(name: string): string {
  return join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'tidemark', name)
}

/** A folder of the user's cache that `make` fills when it is not there yet, whole or not at all. */
export async function cachedFolder(name: string, make: (unfinished: string) => Promise<void>): Promise<string> {
  const folder = cachePath(name)
  if (existsSync(folder)) return folder
  await mkdir(dirname(folder), { recursive: true })
  const unfinished = await temporaryFolder(`${folder}-`)
  try {
    await make(unfinished)
    await rename(unfinished, folder)
  } catch (error) {
    // Another process may have won the race.
    if (!existsSync(folder)) throw error
  } finally {
    await removeFolder(unfinished)
  }
  return folder
}

/**
 * Options of java to run Kafka's classes, its own tools among them, from their archive when there is one. Rejects as
 * `requireJava` does.
 */
export async function kafkaClasses(): Promise<readonly string[]> {
  const archive = join(cachePath(archiveName(await requireJava())), ARCHIVE)
  const options = ['-cp', join(await jars(), '*')]
  return existsSync(archive) ? [`-XX:SharedArchiveFile=${archive}`, ...options] : options
}

/**
 * Makes the archive of classes, with which a broker starts in half the time, unless there is one: `train` runs a broker
 * to its orderly end with the options given. Another version of Java does not take it, and has its own.
 */
export async function archiveClasses(train: (options: readonly string[]) => Promise<void>): Promise<void> {
  const name = archiveName(await requireJava())
  await cachedFolder(name, async (unfinished) => {
    const archive = join(unfinished, ARCHIVE)
    await train([`-XX:ArchiveClassesAtExit=${archive}`])
    if (!existsSync(archive)) throw new Error(`java has not made ${archive}`)
  })
}

function archiveName(java: string): string {
  return `kafka-${KAFKA_VERSION}-java-${java}`
}

/** The version of Java. Throws ConfigurationError when there is none, or too old a one. */
export async function requireJava(): Promise<string> {
  const version = /version "([^"]+)"/.exec(await run('java', ['-version']))?.[1]
  if (version === undefined || Number.parseInt(version, 10) < MIN_JAVA) {
    throw new ConfigurationError('INVALID_CONFIGURATION', `Kafka needs Java ${MIN_JAVA} or newer, found ${version}`)
  }
  return version
}

/** Runs a program to its end and gives what it said. */
export function run(program: string, args: readonly string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] })
    endsWithUs(child)
    let said = ''
    child.stdout.on('data', (chunk: Buffer) => (said += chunk.toString()))
    child.stderr.on('data', (chunk: Buffer) => (said += chunk.toString()))
    child.once('error', (error: NodeJS.ErrnoException) => {
      if (error.code !== 'ENOENT') return reject(error)
      const needs = `${program} was not found on PATH; Kafka needs Java ${MIN_JAVA} or newer (java) and Maven (mvn)`
      reject(new ConfigurationError('INVALID_CONFIGURATION', needs))
    })
    child.once('close', (code) => {
      if (code === 0) resolve(said)
      else reject(new Error(`${program} ended with code ${code}: ${said.trim().split('\n').slice(-5).join(' ')}`))
    })
  })
}
