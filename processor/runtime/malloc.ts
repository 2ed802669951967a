import { existsSync } from 'node:fs'
import { availableParallelism } from 'node:os'

/** Of the C library's malloc; a process that has it set was set up already, by us or by its operator. */
const ARENAS = 'MALLOC_ARENA_MAX'
/** Of a process that was started anew: ld.so takes the settings away from an executable with capabilities of its own. */
const STARTED_ANEW = 'TIDEMARK_STARTED_ANEW'
const TRIPLETS: Readonly<Record<string, string>> = { x64: 'x86_64-linux-gnu', arm64: 'aarch64-linux-gnu' }
/** Where Debian and Ubuntu, Fedora, and Arch have jemalloc. */
export const JEMALLOCS: readonly string[] = [`/usr/lib/${TRIPLETS[process.arch]}`, '/usr/lib64', '/usr/lib'].map(
  (folder) => `${folder}/libjemalloc.so.2`,
)

/**
 * What is to be added to the environment of a process, so that its malloc suits RocksDB: one of its threads allocates what
 * another frees. jemalloc where `exists` finds it and nothing else is preloaded, with an arena for each core. Undefined:
 * nothing.
 */
export function mallocSettings(
  environment: Readonly<Record<string, string | undefined>>,
  exists: (path: string) => boolean,
): Record<string, string> | undefined {
  if (environment[ARENAS] !== undefined || environment[STARTED_ANEW] !== undefined) return undefined
  const arenas = { [ARENAS]: '6', [STARTED_ANEW]: '1' }
  const library = environment.LD_PRELOAD === undefined ? JEMALLOCS.find(exists) : undefined
  if (library === undefined) return arenas
  return { ...arenas, LD_PRELOAD: library, MALLOC_CONF: environment.MALLOC_CONF ?? `narenas:${availableParallelism()}` }
}

/**
 * Starts this process anew, under the same id, where malloc needs settings: it reads them before any code of ours runs.
 * Before `process.stdout` and `stderr` are touched: pipes do not block from then on, and a Node that ends by itself sets
 * them back to what it found.
 */
export function setUpMalloc(): void {
  // A parent that has a channel to this process would lose it.
  if (process.platform !== 'linux' || process.connected) return
  // Node's permission model; a process without it has no `permission`.
  if (process.permission !== undefined && !process.permission.has('child')) return
  const settings = mallocSettings(process.env, existsSync)
  if (settings === undefined) return
  const args = [process.argv0, ...process.execArgv, ...process.argv.slice(1)]
  process.execve?.(process.execPath, args, { ...process.env, ...settings })
}
