import { mkdir, mkdtemp, rmdir } from 'node:fs/promises'
import { join } from 'node:path'
import { addressOf } from '../../processor/contract/address.ts'
import { ConfigurationError } from '../../processor/contract/errors.ts'
import { type Configuration, readEnvironment } from '../../processor/runtime/environment.ts'
import { withSecretFiles } from '../../processor/runtime/secret-files.ts'
import type { Kafka } from '../kafka/kafka.ts'
import { commandOf, DRILLS, type Drill, type DrillOptions, parseOptions, usage } from './drills.ts'
import type { Failure, Mark, Recorder } from './report/journal.ts'
import { tableOf, writeReport } from './report/report.ts'
import { runDrill } from './run.ts'
import { EmbeddedEngine } from './stage/embedded-engine.ts'
import type { Engine } from './stage/engine.ts'
import { KafkaEngine, namedKafka } from './stage/kafka-engine.ts'

interface Output {
  write(text: string): unknown
  readonly isTTY?: boolean | undefined
}

export interface DrillIo {
  readonly stdout: Output
  readonly stderr: Output
  readonly environment: Readonly<Record<string, string | undefined>>
  /** A Kafka to use, which stays; undefined: KAFKA_BROKERS, or one of the drill's own. */
  readonly kafka?: Kafka
  /** Stops the drill: everything it started is ended. */
  readonly signal: AbortSignal
}

/** Of a drill that was stopped before it could say anything, as of any program that Ctrl-C ended. */
const STOPPED = 130

/**
 * The command `drill`. Resolves with the exit code: 0 when every invariant held, 1 when one did not or the drill failed, 2
 * when it was called wrongly or what it needs is missing (one line on stderr says what to do), 130 when it was stopped.
 */
export async function runDrillCommand(argv: readonly string[], io: DrillIo): Promise<number> {
  const { stdout, stderr, signal } = io
  let engine: Engine | undefined
  try {
    const options = parseOptions(argv)
    if (options === undefined) {
      stdout.write(usage())
      return 0
    }
    const configuration = readEnvironment(await withSecretFiles(io.environment))
    if (options.report !== undefined) await usable(options.report)
    stdout.write(`${commandOf(options)}\n`)
    engine = await open(options, configuration, io)
    stdout.write(`ready: ${opened(options, engine)}\n`)
    const outcome = await runDrill(options, engine, hooks(stdout, stderr), signal)
    stdout.write(`${erase(stdout)}\n${tableOf(outcome)}\n`)
    if (options.report !== undefined) stdout.write(`report: ${await writeReport(options.report, outcome)}\n`)
    return outcome.invariants.every(({ held }) => held) ? 0 : 1
  } catch (error) {
    if (signal.aborted) return await stopped(engine, stderr)
    if (error instanceof ConfigurationError) {
      stderr.write(`drill: ${error.message}\n`)
      return 2
    }
    stderr.write(`drill: ${error instanceof Error ? error.stack : String(error)}\n`)
    return 1
  } finally {
    await engine?.[Symbol.asyncDispose]()
  }
}

async function open(options: DrillOptions, configuration: Configuration, io: DrillIo): Promise<Engine> {
  const { kafka, signal, stderr } = io
  const { name, engine, processors, partitions, entry } = options
  const drill: Drill = DRILLS[name]
  if (engine === 'embedded') return EmbeddedEngine.start({ processors, partitions, entry })
  if (engine === 'attached') return KafkaEngine.attach(configuration, options.api, options.mqtt)
  const { KAFKA_BROKERS: brokers } = configuration
  if (brokers !== undefined && (name === 'broker' || name === 'cut')) {
    const way = 'unset KAFKA_BROKERS, and the drill starts one of its own'
    throw new ConfigurationError(
      'INVALID_CONFIGURATION',
      `${name} disturbs Kafka itself, so it must be the drill's: ${way}`,
    )
  }
  const { first = processors, apis = 1 } = drill
  return KafkaEngine.start(
    {
      named: brokers === undefined ? undefined : await namedKafka(configuration, (what) => tell(stderr, what)),
      kafka,
      processors,
      first: first < 0 ? processors + first : first,
      apis,
      partitions,
      detour: name === 'cut',
      entry,
    },
    signal,
  )
}

function tell(stderr: Output, what: string): void {
  stderr.write(`drill: ${what}\n`)
}

function opened({ engine, processors }: DrillOptions, { stage }: Engine): string {
  const where = `MQTT ${addressOf(stage.mqtt)}, API ${stage.api.url}, ${stage.partitions} partitions`
  if (engine === 'attached') return `attached to a running cluster; it is yours to disturb (${where})`
  if (engine === 'embedded') return `one process with ${processors} processors on the embedded log (${where})`
  return `${[...stage.left].join(', ')} (${where})`
}

function hooks(stdout: Output, stderr: Output) {
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

async function usable(folder: string): Promise<void> {
  try {
    await mkdir(folder, { recursive: true })
    await rmdir(await mkdtemp(join(folder, 'writable-')))
  } catch (error) {
    const message = `--report ${folder}: no file can be made there (${(error as Error).message}); name another folder`
    throw new ConfigurationError('FOLDER_UNAVAILABLE', message, error)
  }
}

/** Says what was still there, and that it is gone. */
async function stopped(engine: Engine | undefined, stderr: Output): Promise<number> {
  const left = engine?.stage.left ?? []
  await engine?.[Symbol.asyncDispose]()
  const what = left.length === 0 ? 'nothing was running' : `${left.join(', ')} ended`
  stderr.write(`drill: stopped; ${what}, nothing is left\n`)
  return STOPPED
}
