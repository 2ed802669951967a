import { connect, type Socket } from 'node:net'
import { pause } from '../../processor/runtime/pause.ts'
import { loadDeviceId } from '../../simulators/load/load-connection.ts'
import type { Stack } from '../system/stack.ts'
import { type Figure, percentiles } from './figure.ts'
import { PREFIX } from './ingest.ts'
import { LoadProcess } from './load-process.ts'
import { usage } from './machine.ts'

const CLIENTS = 1_000
const CHANGES_PER_SECOND = 2_000
/** Each changes less often than changes are coalesced, so that every change is an event. */
const DEVICES = 1_000
/** Before the clients are in step and the code is compiled. */
const WARM_MS = 3_000
/** Latencies kept; more would only slow the clients. */
const MAX_SAMPLES = 100_000

const AUDIENCES = [
  { of: 'one device each', path: (id: string) => `/v1/devices/${id}/changes` },
  { of: 'a search each', path: (id: string) => `/v1/changes?q=${encodeURIComponent(`deviceId:${id}`)}` },
]

/** Event streams beside a steady load: what the whole process, ingest included, takes of the machine. */
export async function measureLive(stack: Stack, seconds: number): Promise<Figure[]> {
  const load = { port: stack.mqttPort, prefix: PREFIX, devices: DEVICES, rate: CHANGES_PER_SECOND }
  await using writing = await LoadProcess.start(load)
  const outcome = writing.outcome()
  const figures: Figure[] = []
  try {
    await pause(WARM_MS)
    const alone = await coresFor(stack, seconds)
    for (const audience of AUDIENCES) figures.push(...(await measureAudience(stack, audience, seconds, alone)))
  } finally {
    writing.stop()
  }
  await outcome
  return figures
}

async function measureAudience(
  stack: Stack,
  { of, path }: (typeof AUDIENCES)[number],
  seconds: number,
  alone: number,
): Promise<Figure[]> {
  using clients = new Clients(stack.httpPort)
  await clients.open(Array.from({ length: CLIENTS }, (_, i) => path(loadDeviceId(PREFIX, i % DEVICES))))
  await pause(WARM_MS)
  const before = clients.events
  clients.samples.length = 0
  const cores = await coresFor(stack, seconds)
  const perSecond = (clients.events - before) / seconds
  const { p50, p99 } = percentiles(clients.samples)
  return [
    {
      what: `live: processor time of ${CLIENTS} streams of ${of}, ${CHANGES_PER_SECOND} changes/s`,
      value: cores,
      unit: 'cores',
      limit: { atMost: 1 },
      note: `${Math.round(perSecond)} events/s; without streams ${alone.toFixed(2)} cores`,
    },
    { what: `live: PUBLISH to event, ${of}, p99`, value: p99, unit: 'ms', note: `p50 ${p50} ms` },
  ]
}

/** Of the process, all threads. */
async function coresFor(stack: Stack, seconds: number): Promise<number> {
  const pid = stack.program.child.pid as number
  const [before, from] = [usage(pid), performance.now()]
  await pause(seconds * 1000)
  const used = (usage(pid)?.cpuSeconds ?? Number.NaN) - (before?.cpuSeconds ?? Number.NaN)
  return (used * 1000) / (performance.now() - from)
}

/** Plain sockets: what a client costs must not hide what a stream costs. */
class Clients implements Disposable {
  readonly #port: number
  readonly #sockets: Socket[] = []
  events = 0
  /** From the time that the device gave to the arrival of the event, ms. */
  readonly samples: number[] = []

  constructor(port: number) {
    this.#port = port
  }

  /** Resolves when every stream has begun. */
  async open(paths: readonly string[]): Promise<void> {
    await Promise.all(paths.map((path) => this.#open(path)))
  }

  #open(path: string): Promise<void> {
    return new Promise((resolve, reject) => {
      const socket = connect(this.#port, '127.0.0.1')
      this.#sockets.push(socket)
      socket.setEncoding('latin1').on('error', reject)
      socket.on('close', () => reject(new Error(`the stream ${path} ended`)))
      socket.once('data', (head: string) => {
        if (head.startsWith('HTTP/1.1 200')) resolve()
        else reject(new Error(`${path}: ${head.slice(0, 200)}`))
      })
      socket.on('data', (text: string) => this.#take(text))
      socket.write(`GET ${path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n`)
    })
  }

  /** An event may be cut between two texts: then it is not counted, which is rare. */
  #take(text: string): void {
    const now = Date.now()
    for (const [, at] of text.matchAll(/event: change\n.*?"temperature":\{"value":[\d.]+,"at":"([^"]+)"/g)) {
      this.events++
      if (this.samples.length < MAX_SAMPLES) this.samples.push(now - Date.parse(at as string))
    }
  }

  [Symbol.dispose](): void {
    for (const socket of this.#sockets) socket.destroy()
  }
}
