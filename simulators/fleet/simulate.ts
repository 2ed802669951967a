import { parseArgs } from 'node:util'
import { ConfigurationError } from '../../processor/contract/errors.ts'
import { integer, invalid, number, refused } from '../flags.ts'
import { type Behaviour, WELL_BEHAVED } from './behaviour.ts'
import { Fleet, type FleetCounts, type FleetOptions } from './fleet.ts'
import type { QoS } from './session.ts'

interface Output {
  write(text: string): unknown
  readonly isTTY?: boolean | undefined
}

export interface SimulateIo {
  readonly stdout: Output
  readonly stderr: Output
  /** Epoch ms. */
  readonly now: () => number
  /** Ends the run early, with its summary. */
  readonly signal: AbortSignal
}

export interface Summary {
  readonly devices: number
  readonly seed: number
  readonly published: number
  readonly acknowledged: number
  /** Published and not acknowledged when the run ended. */
  readonly failed: number
  readonly resent: number
  /** Published payloads that nobody can read. */
  readonly mistakes: number
  readonly disconnects: number
  readonly lastError: string | undefined
  /** Undefined when nothing was acknowledged, and with QoS 0. */
  readonly ackMs: { readonly p50: number; readonly p99: number } | undefined
  /** From the first connection to the last acknowledgement. */
  readonly seconds: number
  /** While it published. */
  readonly publishedPerSecond: number
}

const USAGE =
  'usage: node main.ts simulate [--devices 100] [--rate 1] [--seconds 30] [--seed 1] [--host 127.0.0.1] [--port 1883] [--qos 1] [dials]'

/** Each dial's flag, its maximum, and its line of the help. */
const DIALS: Readonly<
  Record<Exclude<keyof Behaviour, 'gateway'>, readonly [flag: string, max: number, about: string]>
> = {
  flaky: ['flaky', 1, 'share of devices whose connection breaks about every 20 messages'],
  sleepy: ['sleepy', 1, 'share of devices that connect only to say what they collected, then disconnect cleanly'],
  outOfOrder: ['out-of-order', 1, 'share of messages sent after the one that follows them'],
  duplicates: ['duplicates', 1, 'share of messages sent twice'],
  skew: ['skew', 1, 'share of devices whose clock is wrong'],
  mistakes: ['mistakes', 1, 'share of messages after which one follows that no one can read'],
  firmware: ['firmware', 1, 'share of devices whose firmware changes in the run'],
  wills: ['wills', 1, 'share of devices with a last will'],
  hot: ['hot', 3, 'exponent of a Zipf law of who speaks how often; 0: all alike'],
}
const MAX_GATEWAY = 1_000

/** Bounded by memory; each connection takes about 40 KiB more. */
const MAX_DEVICES = 200_000
/** A loopback fleet has several source addresses; towards any other host it has one. */
const MAX_CONNECTIONS = 100_000
const MAX_CONNECTIONS_ELSEWHERE = 20_000
const MIN_RATE_PER_SECOND = 0.001
const MAX_RATE_PER_SECOND = 1_000
const MIN_SECONDS = 0.1
const MAX_SECONDS = 30 * 86_400
const MAX_SEED = 2 ** 31 - 1
const PROGRESS_MS = 1_000

/**
 * The command `simulate`. Resolves with the exit code: 0 when every message was acknowledged, 1 when some were not, 2 with one
 * line on stderr when a flag is wrong or no broker answers.
 */
export async function runSimulate(argv: readonly string[], io: SimulateIo): Promise<number> {
  try {
    const options = parseOptions(argv)
    if (options === undefined) {
      io.stdout.write(`${USAGE}\n${help()}`)
      return 0
    }
    const summary = await simulate(options, io)
    return summary.failed === 0 ? 0 : 1
  } catch (error) {
    if (!(error instanceof ConfigurationError)) throw error
    io.stderr.write(`simulate: ${error.message}\n`)
    return 2
  }
}

/** Undefined when only the usage was asked for. Throws ConfigurationError INVALID_CONFIGURATION. */
function parseOptions(argv: readonly string[]): Required<Omit<FleetOptions, 'maxPending'>> | undefined {
  const values = parseFlags(argv)
  if (values.help) return undefined
  const host = values.host
  if (host.trim() === '') throw invalid('--host is empty: give a name or an address')
  const ratePerSecond = number('--rate', values.rate, MIN_RATE_PER_SECOND, MAX_RATE_PER_SECOND)
  const devices = integer('--devices', values.devices, 1, MAX_DEVICES)
  const behaviour = parseDials(values)
  const connections = connectionsOf({ devices, behaviour })
  const most = /^(127\.|localhost$)/.test(host) ? MAX_CONNECTIONS : MAX_CONNECTIONS_ELSEWHERE
  if (connections > most) {
    throw invalid(`--devices ${devices} need ${connections} connections, and ${most} can be had: raise --gateway`)
  }
  return {
    host,
    port: integer('--port', values.port, 1, 65_535),
    devices,
    behaviour,
    ratePerSecond,
    seconds: number('--seconds', values.seconds, MIN_SECONDS, MAX_SECONDS),
    seed: integer('--seed', values.seed, 0, MAX_SEED),
    qos: integer('--qos', values.qos, 0, 2) as QoS,
  }
}

function connectionsOf({ devices, behaviour }: Required<Pick<FleetOptions, 'devices' | 'behaviour'>>): number {
  return Math.ceil(devices / behaviour.gateway)
}

function parseFlags(argv: readonly string[]) {
  try {
    return parseArgs({
      args: [...argv],
      options: {
        devices: { type: 'string', default: '100' },
        rate: { type: 'string', default: '1' },
        seconds: { type: 'string', default: '30' },
        seed: { type: 'string', default: '1' },
        host: { type: 'string', default: '127.0.0.1' },
        port: { type: 'string', default: '1883' },
        qos: { type: 'string', default: '1' },
        gateway: { type: 'string', default: '1' },
        ...DIAL_FLAGS,
        help: { type: 'boolean', default: false },
      },
    }).values
  } catch (error) {
    throw refused(error, USAGE)
  }
}

function parseDials(values: Readonly<Record<string, unknown>>): Behaviour {
  const behaviour = { ...WELL_BEHAVED, gateway: integer('--gateway', values.gateway as string, 1, MAX_GATEWAY) }
  for (const dial of Object.keys(DIALS) as (keyof typeof DIALS)[]) {
    const [flag, max] = DIALS[dial]
    behaviour[dial] = number(`--${flag}`, values[flag] as string, 0, max)
  }
  return behaviour
}

const DIAL_FLAGS = Object.fromEntries(
  Object.values(DIALS).map(([flag]) => [flag, { type: 'string', default: '0' } as const]),
)

function help(): string {
  const dials = Object.values(DIALS).map(([flag, , about]) => `  --${flag.padEnd(13)}${about}\n`)
  return `dials, each 0 when not given:\n${dials.join('')}  --gateway      devices on one connection; 1 when not given\n`
}

/** Runs a fleet, and prints its progress and its summary. Rejects with ConfigurationError when no broker answers. */
async function simulate(
  options: Required<Omit<FleetOptions, 'maxPending'>>,
  io: Pick<SimulateIo, 'stdout' | 'now' | 'signal'>,
): Promise<Summary> {
  const { stdout, now, signal } = io
  await using fleet = await Fleet.open(options, now)
  const started = now()
  const elapsed = (): number => (now() - started) / 1000
  const timer = setInterval(() => stdout.write(progress(options, fleet.counts, elapsed(), stdout.isTTY)), PROGRESS_MS)
  const stop = (): void => fleet.stop()
  if (signal.aborted) stop()
  signal.addEventListener('abort', stop, { once: true })
  try {
    await fleet.finished
  } finally {
    clearInterval(timer)
    signal.removeEventListener('abort', stop)
  }
  const summary = summarize(options, fleet, elapsed())
  stdout.write(stdout.isTTY ? `\r\x1b[K${describe(summary)}` : `${JSON.stringify({ summary })}\n`)
  return summary
}

function progress(
  options: Required<Omit<FleetOptions, 'maxPending'>>,
  counts: FleetCounts,
  elapsed: number,
  tty: boolean | undefined,
): string {
  const { connected, published, acknowledged, dropped } = counts
  const elapsedSeconds = Math.round(elapsed * 10) / 10
  if (!tty) return `${JSON.stringify({ elapsedSeconds, connected, published, acknowledged, dropped })}\n`
  const trouble = counts.lastError === undefined ? '' : `, last error: ${counts.lastError}`
  return (
    `\r\x1b[K${elapsedSeconds.toFixed(0)} s: ${connected}/${connectionsOf(options)} connected, ` +
    `${published} published, ${acknowledged} acknowledged${trouble}`
  )
}

function summarize(options: Required<Omit<FleetOptions, 'maxPending'>>, fleet: Fleet, seconds: number): Summary {
  const { published, acknowledged, resent, mistakes, disconnects, lastError } = fleet.counts
  const { latency } = fleet
  const ms = (percentile: number): number => Math.round(latency.percentile(percentile) / 10) / 100
  return {
    devices: options.devices,
    seed: options.seed,
    published,
    acknowledged,
    failed: published - acknowledged,
    resent,
    mistakes,
    disconnects,
    lastError,
    ackMs: options.qos === 0 || latency.count === 0 ? undefined : { p50: ms(50), p99: ms(99) },
    seconds: Math.round(seconds * 100) / 100,
    publishedPerSecond: Math.round((published / Math.max(fleet.publishingSeconds, 0.001)) * 10) / 10,
  }
}

function describe(summary: Summary): string {
  const { ackMs } = summary
  const latency = ackMs === undefined ? 'none' : `p50 ${ackMs.p50} ms, p99 ${ackMs.p99} ms`
  const error = summary.lastError === undefined ? '' : `last error    ${summary.lastError}\n`
  return (
    `published     ${summary.published} by ${summary.devices} devices in ${summary.seconds} s ` +
    `(${summary.publishedPerSecond}/s)\n` +
    `acknowledged  ${summary.acknowledged}\n` +
    `failed        ${summary.failed}\n` +
    `ack latency   ${latency}\n` +
    `reconnects    ${summary.disconnects}, messages sent again ${summary.resent}\n${error}`
  )
}
