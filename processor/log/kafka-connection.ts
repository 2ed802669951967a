import type { Socket } from 'node:net'
import { SIZE_BYTES } from './kafka-responses.ts'

const CORRELATION_BYTES = 4

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
    scheduleCheckPendingRequests: () => void
    push: (request: QueuedRequest) => void
    fulfillRequest(response: { size: number; correlationId: number; payload: Buffer }): void
  }
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
  takeWhole(connection)
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
