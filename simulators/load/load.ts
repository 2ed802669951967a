import { pause } from '../../processor/runtime/pause.ts'
import type { Random } from '../random.ts'
import { Ledger } from './ledger.ts'
import { LoadConnection, MAX_DEVICES } from './load-connection.ts'

/** Senders: many devices over few connections. */
export interface SendersOptions {
  readonly host: string
  readonly port: number
  /** Device ids are `<prefix>-0000000` and so on; each device belongs to one connection. */
  readonly prefix: string
  readonly connections: number
  readonly devices: number
  /** Messages under way per connection. */
  readonly window: number
  /** Jitter of the reconnects, after which unacknowledged messages are sent again; undefined: a lost connection fails. */
  readonly reconnect?: Random | undefined
  /** Index of the connection's device that sends next; undefined: they take turns. */
  readonly choose?: ((connection: number) => number) | undefined
}

interface Pace {
  /** Over all connections; undefined: as fast as acknowledgements allow. */
  readonly ratePerSecond: number | undefined
  readonly seconds: number
}

/** The load ends after `messages`, shared evenly by the connections, or after `seconds`; one of the two may be Infinity. */
export interface LoadOptions extends SendersOptions, Pace {
  readonly messages: number
}

export interface LoadReport {
  readonly published: number
  readonly acknowledged: number
  readonly payloadBytes: number
  /** From the first send to the last acknowledgement. */
  readonly seconds: number
  readonly perSecond: number
  /** Epoch ms. */
  readonly firstPublishAt: number
  readonly lastAcknowledgedAt: number
  readonly ackMs: { readonly p50: number; readonly p99: number; readonly max: number }
  readonly cpuSeconds: number
}

/** The connections stay open until the result is disposed of: a gateway does not leave when it is silent. */
export interface LoadResult extends Disposable {
  readonly report: LoadReport
  /** Per device the last `seq` acknowledged; 0: none. Its temperature was `loadTemperature(device, seq)`. */
  readonly lastAcknowledged: Uint32Array
}

/** Milliseconds between two sends of a load with a rate. */
const TICK_MS = 2
/** A load that was held up catches up on at most this many seconds of its rate. */
const MAX_OWED_SECONDS = 0.25
/** Longest wait for acknowledgements after the last send. */
const DRAIN_MS = 30_000

/**
 * Publishes QoS 1 messages of about 120 bytes from many devices over few connections, at little cost of its own.
 * Ends when its messages are acknowledged, its time is over or `signal` aborts, and then awaits the last acknowledgements.
 * Rejects when a connection fails, or when they do not come within 30 s.
 */
export async function generateLoad(options: LoadOptions, signal: AbortSignal): Promise<LoadResult> {
  const ledger = new Ledger(options.devices)
  const failed = ledger.failure.signal
  using connections = new DisposableStack()
  const opened = openConnections(options, options.messages, ledger)
  for (const connection of opened) connections.defer(() => connection.destroy())
  await Promise.all(opened.map((connection) => connection.opened))
  const cpu = process.cpuUsage()
  const firstPublishAt = Date.now()
  await publish(options, opened, AbortSignal.any([signal, failed]))
  for (const connection of opened) connection.stop()
  await drain(opened, failed)
  failed.throwIfAborted()
  const payloadBytes = opened[0]?.payloadBytes ?? 0
  const report = summarize(ledger, payloadBytes, firstPublishAt, process.cpuUsage(cpu))
  const kept = connections.move()
  return { report, lastAcknowledged: ledger.last, [Symbol.dispose]: () => kept.dispose() }
}

/** Begins to connect. Throws RangeError when there are too many devices, or fewer devices than connections. */
export function openConnections(options: SendersOptions, messages: number, ledger: Ledger): LoadConnection[] {
  const { host, port, prefix, connections: stride, devices, window, reconnect, choose } = options
  if (devices < stride || devices > MAX_DEVICES) {
    throw new RangeError(`devices is ${devices}: give from ${stride} (one a connection) to ${MAX_DEVICES}`)
  }
  return Array.from({ length: stride }, (_, index) => {
    const clientId = `${prefix}-connection-${index}`
    return new LoadConnection(
      {
        host,
        port,
        clientId,
        prefix,
        firstDevice: index,
        stride,
        window,
        devices: share(devices, stride, index),
        messages: messages === Infinity ? Infinity : share(messages, stride, index),
        reconnect,
        choose: choose === undefined ? undefined : () => choose(index),
      },
      ledger,
    )
  })
}

/** The share of `total` that part `index` of `parts` gets. */
function share(total: number, parts: number, index: number): number {
  return Math.floor(total / parts) + (index < total % parts ? 1 : 0)
}

/** Resolves when all is sent and acknowledged, the time is over, or `signal` aborts. */
export async function publish(
  options: Pace,
  connections: readonly LoadConnection[],
  signal: AbortSignal,
): Promise<void> {
  const { ratePerSecond, seconds } = options
  const done = (): boolean => connections.every((connection) => connection.done)
  const start = performance.now()
  const end = start + seconds * 1000
  if (ratePerSecond === undefined) for (const connection of connections) connection.saturate()
  let next = 0
  let owed = 0
  let last = start
  while (!signal.aborted && !done()) {
    const now = performance.now()
    if (now >= end) return
    if (ratePerSecond !== undefined) {
      // At least one message, or a slower rate would send none.
      const most = Math.max(1, ratePerSecond * MAX_OWED_SECONDS)
      owed = Math.min(owed + ((now - last) / 1000) * ratePerSecond, most)
      // One message per connection and turn spreads the rate.
      for (let full = 0; owed >= 1 && full < connections.length; next = (next + 1) % connections.length) {
        const sent = (connections[next] as LoadConnection).send(1)
        full = sent === 0 ? full + 1 : 0
        owed -= sent
      }
    }
    last = now
    await pause(Math.min(ratePerSecond === undefined ? 20 : TICK_MS, end - now), signal)
  }
}

/** Resolves when nothing is under way, or `failed` aborts. Rejects when acknowledgements are late. */
export async function drain(
  connections: readonly LoadConnection[],
  failed: AbortSignal,
  withinMs = DRAIN_MS,
): Promise<void> {
  const deadline = performance.now() + withinMs
  while (!failed.aborted) {
    const underWay = connections.reduce((sum, connection) => sum + connection.underWay, 0)
    if (underWay === 0) return
    if (performance.now() > deadline)
      throw new Error(`${underWay} messages were not acknowledged within ${withinMs / 1000} s`)
    await pause(1, failed)
  }
}

function summarize(ledger: Ledger, payloadBytes: number, firstPublishAt: number, cpu: NodeJS.CpuUsage): LoadReport {
  const { count, published, lastAt, ackMs } = ledger
  const seconds = Math.max(1, lastAt - firstPublishAt) / 1000
  return {
    published,
    acknowledged: count,
    payloadBytes,
    seconds,
    perSecond: Math.round(count / seconds),
    firstPublishAt,
    lastAcknowledgedAt: lastAt,
    ackMs,
    cpuSeconds: (cpu.user + cpu.system) / 1e6,
  }
}
