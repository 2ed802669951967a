import type { OnReadOpts, Socket } from 'node:net'
import { ownCopy } from '../../../contract/json.ts'

/** The size of a response comes before it, and counts itself not. */
export const SIZE_BYTES = 4
/** A longer response is none: what is fetched at once is bounded far below, and a batch by the brokers' message.max.bytes. */
const MAX_RESPONSE_BYTES = 256 * 1024 * 1024
/** Responses that fit are read many at a time. */
const SHARED_BYTES = 16 * 1024

/**
 * Cuts what a broker sends into responses. A large one is read from the socket straight into memory of its own size: in
 * pieces that are put together it would take twice the memory, for which V8 collects its whole heap ever again.
 */
export class Responses {
  readonly #give: (response: Buffer) => void
  readonly #shared = Buffer.allocUnsafeSlow(SHARED_BYTES)
  /** Bytes of `#shared` that are a part of a size. */
  #held = 0
  #response: Buffer | undefined
  /** Bytes of `#response` that have come. */
  #come = 0

  /** `give` gets each response as it came, its size included, in memory that nobody else writes to. */
  constructor(give: (response: Buffer) => void) {
    this.#give = give
  }

  /** Where the next bytes are to be read to; never empty. */
  get target(): Buffer {
    return this.#response?.subarray(this.#come) ?? this.#shared.subarray(this.#held)
  }

  /** So many bytes have been read to `target`. Throws RangeError when the other side speaks something else than Kafka. */
  read(bytes: number): void {
    if (this.#response !== undefined) {
      this.#come += bytes
      if (this.#come < this.#response.length) return
      const response = this.#response
      this.#response = undefined
      this.#give(response)
      return
    }
    const shared = this.#shared
    const end = this.#held + bytes
    let from = 0
    while (end - from >= SIZE_BYTES) {
      const size = shared.readInt32BE(from)
      if (size < 0 || size > MAX_RESPONSE_BYTES) throw new RangeError(`${size} bytes are no response of a Kafka broker`)
      const next = from + SIZE_BYTES + size
      if (next > end) {
        this.#response = Buffer.allocUnsafeSlow(SIZE_BYTES + size)
        this.#come = shared.copy(this.#response, 0, from, end)
        this.#held = 0
        return
      }
      this.#give(ownCopy(shared.subarray(from, next)))
      from = next
    }
    shared.copyWithin(0, from, end)
    this.#held = end - from
  }
}

/** Has a socket give whole responses, and `fail` with a RangeError when the other side speaks something else than Kafka. */
export function readResponses(give: (response: Buffer) => void, fail: (error: Error) => void): OnReadOpts {
  const responses = new Responses(give)
  return {
    buffer: () => responses.target,
    callback(bytes) {
      try {
        responses.read(bytes)
      } catch (error) {
        fail(error as Error)
      }
      return true
    },
  }
}

const CORRELATION_BYTES = 4
/** From one look at whether anything came to the next, ms: a broker's silence is found so much later at most. */
const LOOK_MS = 100
/** A look that is so much late, ms, says that this process stood still: what came meanwhile has not been read yet. */
const STOOD_STILL_MS = 1_000
/**
 * An answer that is not whole so long, ms, after it should have begun is given up though its bytes come: the largest that
 * is asked for, a fetch of 8 MiB, takes it at 70 kB/s. Answers come one after the other: each has it for itself.
 */
const MAX_ANSWER_MS = 120_000

/** One of kafkajs, as far as it is used. */
export interface KafkaConnection {
  readonly socket: Socket
  /** While it authenticates. */
  readonly authHandlers: object | null | undefined
  processData: (data: Buffer) => void
  isConnected(): boolean
  isAuthenticated(): boolean
  authenticate(): Promise<void>
  nextCorrelationId(): number
  readonly requestQueue: {
    readonly pending: readonly unknown[]
    /** By correlation id, in the order in which they were sent. */
    readonly inflight: ReadonlyMap<number, SentRequest>
    requestTimeoutIntervalId: NodeJS.Timeout
    scheduleRequestTimeoutCheck: () => void
    scheduleCheckPendingRequests: () => void
    /** Until when a quota has it wait before it sends, by Date.now(). */
    throttledUntil: number
    sendSocketRequest: (request: SentRequest) => void
    push: (request: QueuedRequest) => void
    fulfillRequest(response: { size: number; correlationId: number; payload: Buffer }): void
    /** Ends its timers. */
    destroy(): void
  }
}

interface SentRequest {
  /** Ms. */
  readonly requestTimeout: number
  timeoutRequest(): void
}

interface QueuedRequest {
  readonly entry: { reject: (error: Error) => void; readonly [name: string]: unknown }
  readonly expectResponse: boolean
  readonly requestTimeout: number | null
  sendRequest(): void
}

/** Mends what is amiss in `connection` before it connects. */
export function mend(connection: KafkaConnection): void {
  quieten(connection.requestQueue)
  throttleSteadily(connection.requestQueue)
  takeWhole(connection)
  judgeBySilence(connection)
}

/**
 * kafkajs starts a timer per response to look at its queue, with a negative time when nothing throttles, which Node 24
 * warns of. Only a queue with something in it needs the look.
 */
function quieten(queue: KafkaConnection['requestQueue']): void {
  const schedule = queue.scheduleCheckPendingRequests.bind(queue)
  queue.scheduleCheckPendingRequests = () => {
    if (queue.pending.length > 0) schedule()
  }
}

/**
 * kafkajs goes by the time of day: once that was set back by an hour, a connection that a quota had wait for a second would
 * send nothing for the hour, and what waits in its queue is never given up.
 */
function throttleSteadily(queue: KafkaConnection['requestQueue']): void {
  let until = Number.NEGATIVE_INFINITY
  Object.defineProperty(queue, 'throttledUntil', {
    get: () => Date.now() + (until - performance.now()),
    set: (time: number) => {
      until = performance.now() + (time - Date.now())
    },
  })
}

/** What its socket gives are whole responses: kafkajs would copy each, to put together what it takes for a part of one. */
function takeWhole(connection: KafkaConnection): void {
  const process = connection.processData.bind(connection)
  connection.processData = (response) => {
    if (connection.authHandlers) return process(response)
    const size = response.length - SIZE_BYTES
    const correlationId = response.readInt32BE(SIZE_BYTES)
    const payload = response.subarray(SIZE_BYTES + CORRELATION_BYTES)
    connection.requestQueue.fulfillRequest({ size, correlationId, payload })
  }
}

/**
 * kafkajs gives up a request whose answer is not whole in time. A large one takes longer than that over a slow link, and is
 * as large when it is asked for again; those behind it wait for it. So a request has its time from the last byte that came,
 * by a clock that nobody sets: by the time of day, all that is under way would be given up when that is set ahead.
 */
function judgeBySilence(connection: KafkaConnection): void {
  const { requestQueue } = connection
  const { inflight } = requestQueue
  const sentAt = new WeakMap<SentRequest, number>()
  const send = requestQueue.sendSocketRequest.bind(requestQueue)
  requestQueue.sendSocketRequest = (request) => {
    sentAt.set(request, performance.now())
    send(request)
  }
  requestQueue.scheduleRequestTimeoutCheck = () => {
    let [bytes, heardAt] = [0, 0]
    let [first, firstAt]: [number | undefined, number] = [undefined, 0]
    let lookedAt = performance.now()
    const look = (): void => {
      const now = performance.now()
      const { bytesRead } = connection.socket
      if (bytesRead !== bytes) [bytes, heardAt] = [bytesRead, now]
      const [next] = inflight.keys()
      if (next !== first) [first, firstAt] = [next, now]
      if (now - lookedAt > LOOK_MS + STOOD_STILL_MS) heardAt = firstAt = now
      lookedAt = now
      for (const request of inflight.values()) {
        const silent = now - Math.max(sentAt.get(request) as number, heardAt) > request.requestTimeout
        const endless = now - firstAt > request.requestTimeout + MAX_ANSWER_MS
        if (silent || endless) request.timeoutRequest()
      }
      if (!connection.isConnected()) requestQueue.destroy()
    }
    requestQueue.destroy()
    requestQueue.requestTimeoutIntervalId = setInterval(look, LOOK_MS)
  }
}

/**
 * kafkajs gives up a request without an answer, and keeps its connection. A host that is gone would be asked over it for
 * the quarter of an hour that TCP takes to notice.
 */
export function endOnSilence({ requestQueue, socket }: KafkaConnection): void {
  const push = requestQueue.push.bind(requestQueue)
  requestQueue.push = (request) => {
    const { entry } = request
    const { reject } = entry
    entry.reject = (error) => {
      reject(error)
      if (error.name === 'KafkaJSRequestTimeoutError') socket.destroy(error)
    }
    push(request)
  }
}
