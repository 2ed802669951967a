import { mkdir, mkdtemp, rmdir } from 'node:fs/promises'
import { join } from 'node:path'
import { addressOf } from '../../processor/contract/address.ts'
import { ConfigurationError } from '../../processor/contract/errors.ts'
import { type Configuration, readEnvironment, withSecretFiles } from '../../processor/runtime/environment.ts'
import { invalid } from '../flags.ts'
import type { Kafka } from '../kafka/kafka.ts'
import { DRILLS, type Drill } from './drills.ts'
import { commandOf, type DrillOptions, parseOptions, usage } from './options.ts'
import type { Failure, Mark, Recorder } from './report/journal.ts'
import { tableOf, writeReport } from './report/report.ts'
import { type RunHooks, runDrill } from './run.ts'
import { startEmbedded } from './stage/embedded-stage.ts'
import { attach, namedKafka, startOnKafka } from './stage/kafka-stage.ts'
import type { Stage } from './stage/stage.ts'

interface Output {
  write(text: string): unknown
  readonly isTTY?: boolean | undefined
}

export interface DrillIo {
  readonly stdout: Output
  readonly stderr: Output
  readonly environment: Readonly<Record<string, string | undefined>>
  /** A Kafka to use, which stays; undefined: the one of KAFKA_BROKERS, or one that the drill starts. */
  readonly kafka?: Kafka
  /** Stops the drill, which ends all that it started. */
  readonly signal: AbortSignal
}

/** Exit code of a program that Ctrl-C ended. */
const STOPPED = 130

/**
 * The command `drill`. Resolves with the exit code: 0 when every invariant held; 1 when one did not, or the drill failed; 2
 * when the call is wrong or something that it needs is missing (one line on stderr says what to do); 130 when it was stopped.
 */
export async function runDrillCommand(argv: readonly string[], io: DrillIo): Promise<number> {
  const { stdout, stderr, signal } = io
  let stage: Stage | undefined
  try {
    const options = parseOptions(argv)
    if (options === undefined) {
      stdout.write(usage())
      return 0
    }
    const configuration = readEnvironment(await withSecretFiles(io.environment))
    if (options.report !== undefined) await requireFolder(options.report)
    stdout.write(`${commandOf(options)}\n`)
    stage = await open(options, configuration, io)
    stdout.write(`ready: ${opened(options, stage)}\n`)
    const outcome = await runDrill(options, stage, hooks(stdout, stderr), signal)
    stdout.write(`${erase(stdout)}\n${tableOf(outcome)}\n`)
    if (options.report !== undefined) stdout.write(`report: ${await writeReport(options.report, outcome)}\n`)
    return outcome.invariants.every(({ held }) => held) ? 0 : 1
  } catch (error) {
    if (signal.aborted) return await stopped(stage, stderr)
    if (error instanceof ConfigurationError) {
      stderr.write(`drill: ${error.message}\n`)
      return 2
    }
    stderr.write(`drill: ${error instanceof Error ? error.stack : String(error)}\n`)
    return 1
  } finally {
    await stage?.[Symbol.asyncDispose]()
  }
}

async function open(options: DrillOptions, configuration: Configuration, io: DrillIo): Promise<Stage> {
  const { kafka, signal, stderr } = io
  const { name, engine, processors, partitions, entry } = options
  if (engine === 'embedded') return startEmbedded({ processors, partitions, entry })
  if (engine === 'attached') return attach(configuration, options.api, options.mqtt)
  const { KAFKA_BROKERS: brokers } = configuration
  if (brokers !== undefined && (name === 'broker' || name === 'cut')) {
    const way = 'unset KAFKA_BROKERS, and the drill starts one of its own'
    throw invalid(`${name} disturbs Kafka itself, so it must be the drill's: ${way}`)
  }
  const tell = (what: string): unknown => stderr.write(`drill: ${what}\n`)
  const named = brokers === undefined ? undefined : await namedKafka(configuration, tell)
  const { first = processors, apis = 1 }: Drill = DRILLS[name]
  const up = first < 0 ? processors + first : first
  return startOnKafka(
    { named, kafka, processors, first: up, apis, partitions, cuttable: name === 'cut', entry },
    signal,
  )
}

function opened({ engine, processors }: DrillOptions, { mqtt, api, partitions, running }: Stage): string {
  const where = `MQTT ${addressOf(mqtt)}, API ${api.url}, ${partitions} partitions`
  if (engine === 'attached') return `attached to a running cluster; it is yours to disturb (${where})`
  if (engine === 'embedded') return `one process with ${processors} processors on the embedded log (${where})`
  return `${running.join(', ')} (${where})`
}

function hooks(stdout: Output, stderr: Output): RunHooks {
  return {
    onMark: ({ at, verb, target }: Mark) =>
      stdout.write(`${erase(stdout)}${formatSeconds(at)}  ${verb.padEnd(6)} ${target}\n`),
    onFailure: ({ what, why }: Failure) => stderr.write(`${erase(stderr)}drill: ${what}: ${why}\n`),
    onProgress: ({ samples }: Recorder) => {
      const last = samples.at(-1)
      if (last === undefined || stdout.isTTY !== true) return
      const { at, acknowledged, applied, lag, failures } = last
      const failed = failures === 0 ? '' : `, ${failures} reads failed`
      stdout.write(
        `\r\u001b[K${formatSeconds(at)}  ${acknowledged}/s acknowledged, ${applied}/s applied, lag ${lag ?? 'unknown'}${failed}`,
      )
    },
    onStage: (what: string) => stdout.write(`${erase(stdout)}${what}\n`),
  }
}

function erase({ isTTY }: Output): string {
  return isTTY === true ? '\r\u001b[K' : ''
}

function formatSeconds(ms: number): string {
  return `${(ms / 1000).toFixed(1).padStart(6)} s`
}

async function requireFolder(folder: string): Promise<void> {
  try {
    await mkdir(folder, { recursive: true })
    await rmdir(await mkdtemp(join(folder, 'writable-')))
  } catch (error) {
    const message = `--report ${folder}: no file can be made there (${(error as Error).message}); name another folder`
    throw new ConfigurationError('FOLDER_UNAVAILABLE', message, error)
  }
}

/** Ends what still runs, and says so. */
async function stopped(stage: Stage | undefined, stderr: Output): Promise<number> {
  const running = stage?.running ?? []
  await stage?.[Symbol.asyncDispose]()
  const what = running.length === 0 ? 'nothing was running' : `${running.join(', ')} ended`
  stderr.write(`drill: stopped; ${what}, nothing is left\n`)
  return STOPPED
}
