import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { cpus, release, totalmem, type } from 'node:os'

const REPOSITORY = new URL('../../', import.meta.url)
const PACKAGES = ['rocksdb-native', 'aedes', 'fastify', 'abstract-level']

/** What a figure depends on beside the code. */
export interface Machine {
  readonly cpu: string
  readonly cores: number
  readonly memoryGiB: number
  readonly os: string
  readonly node: string
  readonly packages: Readonly<Record<string, string>>
  readonly commit: string
}

/** `versions`: of what the bench uses beside the packages. */
export function machine(versions: Readonly<Record<string, string>>): Machine {
  return {
    cpu: cpus()[0]?.model ?? 'unknown',
    cores: cpus().length,
    memoryGiB: Math.round(totalmem() / 1024 ** 3),
    os: `${type()} ${release()}`,
    node: process.version,
    packages: { ...Object.fromEntries(PACKAGES.map((name) => [name, packageVersion(name)])), ...versions },
    commit: commit(),
  }
}

export function describe({ cpu, cores, memoryGiB, os, node, packages, commit: at }: Machine): string {
  const versions = Object.entries(packages).map(([name, version]) => `${name} ${version}`)
  return `${cpu}, ${cores} cores, ${memoryGiB} GiB, ${os}\nnode ${node}, ${versions.join(', ')}, commit ${at}\n`
}

function packageVersion(name: string): string {
  const text = readFileSync(new URL(`node_modules/${name}/package.json`, REPOSITORY), 'utf8')
  return (JSON.parse(text) as { version: string }).version
}

/** With a `+` when files differ from it. */
function commit(): string {
  try {
    return `${git('rev-parse', '--short', 'HEAD')}${git('status', '--porcelain') === '' ? '' : '+'}`
  } catch {
    return 'none'
  }
}

function git(...args: string[]): string {
  return execFileSync('git', args, { cwd: REPOSITORY, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim()
}

export interface Usage {
  readonly residentMiB: number
  readonly peakMiB: number
  readonly cpuSeconds: number
}

const CLOCK_TICKS_PER_SECOND = 100

/** Of another process, from Linux's /proc; undefined where there is none. */
export function usage(pid: number): Usage | undefined {
  try {
    const status = readFileSync(`/proc/${pid}/status`, 'utf8')
    const mebibytes = (name: string): number => Number(new RegExp(`${name}:\\s+(\\d+) kB`).exec(status)?.[1]) / 1024
    // Fields are counted after the command, which may itself contain blanks.
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ').at(-1)?.split(' ') ?? []
    const cpuSeconds = (Number(fields[11]) + Number(fields[12])) / CLOCK_TICKS_PER_SECOND
    return { residentMiB: mebibytes('VmRSS'), peakMiB: mebibytes('VmHWM'), cpuSeconds }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
}
