import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, test, vi } from 'vitest'
import { runDrillCommand } from '../../simulators/drill/drill.ts'
import { type DrillOptions, parseOptions } from '../../simulators/drill/options.ts'
import { runDrill } from '../../simulators/drill/run.ts'
import { startEmbedded } from '../../simulators/drill/stage/embedded-stage.ts'
import { Program } from '../../simulators/program.ts'
import { entry, SMALL_DRILL } from './small-drill.ts'

/** The faulty products, seen from their folder. */
const FAULTS = new URL('../faults/', import.meta.url).href
const SMALL = [...SMALL_DRILL, '--seconds', '5']
/** Patience with what never comes to rest: more than it takes to see all partitions owned, before anything is disturbed. */
const UNREST_SECONDS = '5'

/** Runs the command in this process. */
async function drill(argv: readonly string[], environment: Record<string, string> = {}) {
  let stdout = ''
  let stderr = ''
  const code = await runDrillCommand(argv, {
    stdout: { write: (text: string) => (stdout += text) },
    stderr: { write: (text: string) => (stderr += text) },
    environment,
    signal: new AbortController().signal,
  })
  return { code, stdout, stderr }
}

describe('a wrong call is told in one line, with what to do, and exit code 2', () => {
  test.each<[string, string[], Record<string, string>, RegExp]>([
    ['no drill', [], {}, /^drill: name a drill: watch, join, /],
    ['an unknown drill', ['explode'], {}, /there is no drill "explode": give one of watch, /],
    ['two drills', ['kill', 'roll'], {}, /"roll" is one argument too many/],
    ['an unknown flag', ['kill', '--force'], {}, /'--force'; --help lists the flags/],
    ['no processors', ['kill', '--processors', '0'], {}, /--processors is "0": give a whole number from 1 to 16/],
    ['one processor where two are needed', ['freeze', '--processors', '1'], {}, /from 2 to 16/],
    ['part of a device', ['kill', '--devices', '1.5'], {}, /--devices is "1.5": give a whole number/],
    ['too many devices', ['kill', '--devices', '1e9'], {}, /--devices is "1e9"/],
    ['a rate that is none', ['kill', '--rate', 'fast'], {}, /--rate is "fast": give a whole number from 1/],
    ['no time', ['kill', '--seconds', '0'], {}, /--seconds is "0": give a number from 2/],
    ['no minutes', ['soak', '--minutes=-1'], {}, /--minutes is "-1"/],
    ['a drill that one process cannot play', ['freeze', '--embedded'], {}, /freeze needs processes of their own/],
    ['two engines', ['kill', '--embedded', '--attach'], {}, /give one of the two/],
    ['no URL', ['kill', '--attach', '--api', 'localhost'], {}, /--api is "localhost": give a URL/],
    ['no address', ['kill', '--attach', '--mqtt', 'localhost'], {}, /--mqtt is "localhost": give host:port/],
    ['nothing to attach to', ['watch', '--attach'], {}, /--attach looks at a cluster on Kafka: set KAFKA_BROKERS/],
    ['a Kafka that must not be killed', ['broker'], { KAFKA_BROKERS: '127.0.0.1:1' }, /unset KAFKA_BROKERS/],
    [
      'a Kafka that is not there',
      ['kill'],
      { KAFKA_BROKERS: '127.0.0.1:1' },
      /no Kafka answers at 127.0.0.1:1: start it/,
    ],
    [
      'a secret that is not there',
      ['kill'],
      { CLUSTER_SECRET_FILE: '/nowhere' },
      /CLUSTER_SECRET_FILE=\/nowhere cannot be read/,
    ],
    ['a broken environment', ['kill'], { PARTITIONS: 'many' }, /PARTITIONS="many"/],
  ])('%s', async (_, argv, environment, line) => {
    const { code, stdout, stderr } = await drill(argv, environment)
    expect({ code, stdout }).toEqual({ code: 2, stdout: expect.not.stringContaining('ready') })
    expect(stderr).toMatch(line)
    expect(stderr.trim().split('\n')).toHaveLength(1)
  })

  test('a report folder that is a file', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'tidemark-'))
    const file = join(folder, 'taken')
    await writeFile(file, '')
    const { code, stderr } = await drill(['kill', '--embedded', '--report', file])
    await rm(folder, { recursive: true })
    expect({ code, stderr }).toEqual({
      code: 2,
      stderr: expect.stringContaining(`--report ${file}: no file can be made there`),
    })
  })

  test('a machine without Java', async () => {
    const program = Program.main(['drill', 'kill', ...SMALL], { PATH: '/nowhere' })
    expect(await program.exited).toEqual({ code: 2, signal: null })
    expect(program.stderr).toContain('java was not found on PATH')
  })
})

const nothing = (): void => undefined

describe('on the embedded engine', { timeout: 120_000 }, () => {
  test.each(['kill', 'wipe', 'poison', 'storm', 'hot'])('%s: every invariant holds', async (name) => {
    const { code, stdout, stderr } = await drill([name, '--embedded', ...SMALL])
    expect(code, stdout + stderr).toBe(0)
    expect(stdout).toMatch(new RegExp(`${name}: all \\d+ invariants held`))
  })

  test('a process that does not start again ends the disturbances, not the checks and the report', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'tidemark-'))
    const report = await mkdtemp(join(tmpdir(), 'tidemark-'))
    const argv = [...SMALL, '--seconds', '3', '--patience', UNREST_SECONDS, '--report', report]
    const broken = entry('starts-once.ts', FAULTS)
    const program = Program.main(['drill', 'kill', '--embedded', ...argv, ...broken], { TMPDIR: folder })
    expect(await program.exited, program.stderr).toEqual({ code: 1, signal: null })
    expect(program.stderr).toBe('drill: start tidemark failed: tidemark ended: there is no second start\n')
    expect(program.stdout).toMatch(/BROKEN {2}every disturbance could be made/)
    expect(program.stdout).toMatch(/UNSEEN {2}nothing acknowledged is lost .* looked for in the log$/m)
    expect(program.stdout).toMatch(/UNSEEN {2}every store equals the fold of the input/)
    expect(program.stdout).toMatch(/held {4}the committed offset is never ahead of the changelog/)
    expect(program.stdout).toMatch(/^kill: \d of \d+ invariants BROKEN, 5 UNSEEN, 2 disturbances, then start tidemark/m)
    const { held, journal } = JSON.parse(await readFile(join(report, 'report.json'), 'utf8'))
    expect(held).toBe(false)
    expect(journal.failure).toMatchObject({ at: expect.any(Number), what: 'start tidemark failed' })
    expect(journal.failure.at).toBeGreaterThanOrEqual(journal.marks.at(-1).at)
    expect(await readFile(join(report, 'report.html'), 'utf8')).toContain('start tidemark failed: tidemark ended')
    // Nothing of the processes is left.
    expect(await readdir(folder)).toEqual([])
    await Promise.all([rm(folder, { recursive: true }), rm(report, { recursive: true })])
  })

  test.each<[string, string, RegExp[], name?: string, patience?: string]>([
    [
      'answers for one device what it first answered',
      'answers-stale.ts',
      [/BROKEN {2}a reader of the changelog sees/, /^ +\S+ in the API, asked for alone: .* and should be/m],
    ],
    [
      'answers for no device, also when nothing is disturbed',
      'fails-one.ts',
      [/BROKEN {2}reads went on/, /^ +\S+Z \/v1\/devices\/\S+: 500 \{\}$/m, /BROKEN {2}all could be looked at/],
      'kill',
    ],
    [
      'shuts all devices out for good',
      'shuts-out.ts',
      [/BROKEN {2}devices could send/, /^ +60 of 60 connections were not back at the end$/m],
    ],
    [
      'acknowledges what nobody sent',
      'acknowledges-wrongly.ts',
      [/BROKEN {2}each acknowledgement is of what was sent, in order/, /^ +connection .* where PUBACK \d+ was due$/m],
    ],
    [
      'does not see that a connection is lost',
      'misses-the-lost.ts',
      [
        /BROKEN {2}connectivity, wills and QoS 2 are as MQTT has them/,
        /^ +\S+: it is cut off, and is online \(connected\), not offline \(connection lost\)$/m,
      ],
    ],
    [
      'acknowledges no bad payload',
      'forgets-poison.ts',
      [/BROKEN {2}bad payloads stop nothing/, /^ +(\d+) of \1 bad payloads were never acknowledged$/m],
      'poison',
    ],
    [
      'keeps less than the drill sends',
      'keeps-little.ts',
      [
        /UNSEEN {2}each log record is counted once +retention removed 0 to \d+ of/,
        /0 of \d+ invariants BROKEN, 5 UNSEEN/,
      ],
      'watch',
      // It comes to rest, however long a slow machine takes for that.
      '60',
    ],
  ])('a product that %s is found out', async (_, file, told, name = 'watch', patience = UNREST_SECONDS) => {
    const argv = [...SMALL, '--seconds', '4', '--patience', patience, ...entry(file, FAULTS)]
    const { code, stdout, stderr } = await drill([name, '--embedded', ...argv])
    expect(code, stdout + stderr).toBe(1)
    for (const what of told) expect(stdout).toMatch(what)
  })

  test('a fault of the drill itself ends it, with that fault', async () => {
    const options = parseOptions(['watch', '--embedded', ...SMALL, '--seconds', '600']) as DrillOptions
    await using stage = await startEmbedded({ ...options, entry: undefined })
    const faulty = {
      // Its readers fail; everything else goes on.
      get url(): string {
        throw new Error('there is no URL')
      },
      headers: {},
    }
    const broken = new Proxy(stage, {
      get(_, name) {
        if (name === 'api') return faulty
        const value: unknown = Reflect.get(stage, name, stage)
        return typeof value === 'function' ? (value.bind(stage) as unknown) : value
      },
    })
    const hooks = { onMark: nothing, onFailure: nothing, onProgress: nothing, onStage: nothing }
    const { signal } = new AbortController()
    await expect(runDrill(options, broken, hooks, signal)).rejects.toThrow('there is no URL')
  })

  test('Ctrl-C ends all that was started, and says so', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'tidemark-'))
    const program = Program.main(['drill', 'watch', '--embedded', ...SMALL, '--seconds', '60'], { TMPDIR: folder })
    await vi.waitFor(() => expect(program.stdout).toContain('ready'), { timeout: 60_000, interval: 50 })
    expect(await readdir(folder)).toHaveLength(1)
    program.child.kill('SIGINT')
    expect(await program.exited).toEqual({ code: 130, signal: null })
    expect(program.stderr).toBe('drill: stopped; tidemark ended, nothing is left\n')
    expect(await readdir(folder)).toEqual([])
    await rm(folder, { recursive: true })
  })
})
