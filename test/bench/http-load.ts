import { connect, type OnReadOpts, type Socket } from 'node:net'
import { createHistogram, type RecordableHistogram } from 'node:perf_hooks'

export interface HttpLoad {
  readonly port: number
  readonly connections: number
  readonly seconds: number
  readonly paths: readonly string[]
  /** With them each request is a POST of one as JSON, all to the first path. */
  readonly bodies?: readonly string[]
  /**
   * Requests a second over all connections, at set times: one that an earlier answer held up counts from when it was due.
   * Default: as many as can be.
   */
  readonly rate?: number
}

export interface HttpLoadReport {
  readonly requests: number
  readonly perSecond: number
  readonly ms: { readonly p50: number; readonly p99: number; readonly max: number }
}

/** Share of the time that is measured. */
const WARM_UP = 0.4
const MAX_LATENCY_US = 60_000_000
/** Read at once, into memory that is used again: what the generator takes of two cores, the server cannot have. */
const READ_BYTES = 64 * 1024
const HEAD_END = Buffer.from('\r\n\r\n')
const OK = Buffer.from('HTTP/1.1 200')
const LENGTH = Buffer.from('\r\ncontent-length: ')

/**
 * Requests over kept connections, the next on each as soon as the last is answered. autocannon spends more of a core on a
 * request than the server under test does (measured: 22 µs), so at these rates it would measure itself.
 * Rejects when an answer is not 200 or has no length, or a connection fails.
 */
export async function httpLoad({ port, connections, seconds, paths, bodies, rate }: HttpLoad): Promise<HttpLoadReport> {
  const host = `HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\n`
  const requests =
    bodies?.map((body) => {
      const about = `content-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}\r\n`
      return Buffer.from(`POST ${paths[0]} ${host}${about}\r\n${body}`)
    }) ?? paths.map((path) => Buffer.from(`GET ${path} ${host}\r\n`))
  const latency = createHistogram({ lowest: 1, highest: MAX_LATENCY_US, figures: 3 })
  const start = performance.now()
  const end = start + seconds * 1000
  const periodMs = rate === undefined ? 0 : (connections * 1000) / rate
  await Promise.all(
    Array.from({ length: connections }, (_, index) => {
      const first = Math.floor((index * requests.length) / connections)
      const pace = { periodMs, firstAt: start + (periodMs * index) / connections }
      return new Getter(port, requests, first, end, latency, pace).done
    }),
  )
  return {
    requests: latency.count,
    perSecond: latency.count / ((performance.now() - start) / 1000),
    ms: { p50: latency.percentile(50) / 1000, p99: latency.percentile(99) / 1000, max: latency.max / 1000 },
  }
}

/** The same once code is compiled, which takes some seconds: a service is asked for longer than that. */
export async function warmHttpLoad(load: HttpLoad): Promise<HttpLoadReport> {
  await httpLoad({ ...load, seconds: load.seconds * WARM_UP })
  return httpLoad(load)
}

/** When a connection sends, in ms of `performance.now()`; a period of 0: as soon as it can. */
interface Pace {
  readonly periodMs: number
  readonly firstAt: number
}

/** One connection. */
class Getter {
  readonly done: Promise<void>
  readonly #socket: Socket
  readonly #requests: readonly Buffer[]
  readonly #end: number
  readonly #latency: RecordableHistogram
  readonly #pace: Pace
  #next: number
  /** When the last one was due, and from when its time is taken. */
  #dueAt = 0
  #sentAt = 0
  /** What has come of a head that is not whole yet. */
  #head: Buffer | undefined
  /** Of an answer with a whole head, bytes. */
  #missing = 0

  constructor(
    port: number,
    requests: readonly Buffer[],
    first: number,
    end: number,
    latency: RecordableHistogram,
    pace: Pace,
  ) {
    this.#pace = pace
    this.#requests = requests
    this.#next = first
    this.#end = end
    this.#latency = latency
    const onread: OnReadOpts = {
      buffer: Buffer.allocUnsafe(READ_BYTES),
      callback: (length, buffer) => {
        this.#read(buffer.subarray(0, length) as Buffer)
        return true
      },
    }
    const socket = connect({ port, host: '127.0.0.1', noDelay: true, onread })
    this.#socket = socket
    this.done = new Promise((resolve, reject) => {
      socket.on('error', reject)
      socket.on('close', () => {
        if (performance.now() < this.#end) reject(new Error('the server closed a connection'))
        else resolve()
      })
      socket.on('connect', () => this.#due(pace.firstAt))
    })
  }

  /** The next request is due at `at`. */
  #due(at: number): void {
    this.#dueAt = at
    if (this.#pace.periodMs === 0) return this.#send(performance.now())
    const wait = at - performance.now()
    if (wait <= 0) this.#send(at)
    // A timer that is late is not the server's doing; the next one is due as if it had not been.
    else setTimeout(() => this.#send(performance.now()), wait)
  }

  #send(since: number): void {
    this.#sentAt = since
    if (performance.now() >= this.#end) {
      this.#socket.end()
      return
    }
    this.#socket.write(this.#requests[this.#next] as Buffer)
    this.#next = (this.#next + 1) % this.#requests.length
  }

  #read(chunk: Buffer): void {
    if (this.#missing > 0) {
      this.#missing -= chunk.length
    } else {
      const bytes = this.#head === undefined ? chunk : Buffer.concat([this.#head, chunk])
      const headEnd = bytes.indexOf(HEAD_END)
      if (headEnd === -1) {
        // The chunk's memory is used again.
        this.#head = Buffer.from(bytes)
        return
      }
      this.#head = undefined
      this.#missing = headEnd + HEAD_END.length + this.#bodyLength(bytes, headEnd) - bytes.length
    }
    if (this.#missing > 0) return
    const us = Math.round((performance.now() - this.#sentAt) * 1000)
    this.#latency.record(Math.min(Math.max(1, us), MAX_LATENCY_US))
    this.#due(this.#dueAt + this.#pace.periodMs)
  }

  #bodyLength(bytes: Buffer, headEnd: number): number {
    const at = bytes.indexOf(LENGTH)
    if (bytes.compare(OK, 0, OK.length, 0, OK.length) === 0 && at !== -1 && at < headEnd) {
      return Number.parseInt(bytes.toString('latin1', at + LENGTH.length, at + LENGTH.length + 10), 10)
    }
    this.#socket.destroy(new Error(`not an answer with 200 and a length: ${bytes.toString('latin1', 0, headEnd)}`))
    return Infinity
  }
}
