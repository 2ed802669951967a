/**
 * Connections to brokers. This is the one file that touches kafkajs, and all that it uses of it is private:
 *
 * - `src/broker` encodes ApiVersions, SASL, and the requests of groups, transactions and topics (interface below).
 * - `src/network/connectionPool` opens one connection with TLS, and has its request queue.
 * - `src/loggers` is given to both; `src/protocol/error` turns codes into errors, and gets the codes newer than kafkajs.
 *
 * `mend` and `endOnSilence` replace methods of the connection and its queue, each for a fault that is named there. kafkajs
 * 2.2.4 is unmaintained, so these internals do not change. Its producer, consumer and admin are not used.
 */
import { createRequire } from 'node:module'
import { connect as connectTcp, isIP, type Socket } from 'node:net'
import { type ConnectionOptions, connect as connectTls } from 'node:tls'
import type { Logger } from 'pino'
import { addressOf } from '../../../contract/address.ts'
import { ConfigurationError, RetryableError } from '../../../contract/errors.ts'
import { NEWER_CODES } from './errors.ts'
import { readResponses, SIZE_BYTES } from './wire.ts'

export interface BrokerRequests {
  findGroupCoordinator(request: {
    groupId: string
    coordinatorType: number
  }): Promise<{ coordinator: { nodeId: number } }>
  createTopics(request: { topics: readonly TopicRequest[]; timeout: number }): Promise<unknown>
  describeConfigs(request: { resources: readonly { type: number; name: string; configNames?: string[] }[] }): Promise<{
    resources: { resourceName: string; configEntries: { configName: string; configValue: string | null }[] }[]
  }>
  listOffsets(request: {
    replicaId: number
    isolationLevel: number
    topics: readonly { topic: string; partitions: readonly { partition: number; timestamp: number }[] }[]
  }): Promise<{ responses: { topic: string; partitions: { partition: number; offset: string }[] }[] }>
  offsetFetch(request: { groupId: string; topics: readonly PartitionsOf<{ partition: number }>[] }): Promise<{
    responses: PartitionsOf<{ partition: number; offset: string; metadata: string | null }>[]
  }>
  initProducerId(request: { transactionalId?: string; transactionTimeout: number }): Promise<{
    producerId: string
    producerEpoch: number
  }>
  addPartitionsToTxn(
    request: Transaction & { topics: readonly { topic: string; partitions: number[] }[] },
  ): Promise<unknown>
  addOffsetsToTxn(request: Transaction & { groupId: string }): Promise<unknown>
  txnOffsetCommit(
    request: Transaction & {
      groupId: string
      topics: readonly PartitionsOf<{ partition: number; offset: number; metadata: string }>[]
    },
  ): Promise<unknown>
  endTxn(request: Transaction & { transactionResult: boolean }): Promise<unknown>
  joinGroup(request: {
    groupId: string
    sessionTimeout: number
    rebalanceTimeout: number
    memberId: string
    groupProtocols: readonly { name: string; metadata: Buffer }[]
  }): Promise<Joined>
  syncGroup(request: {
    groupId: string
    generationId: number
    memberId: string
    groupAssignment: readonly { memberId: string; memberAssignment: Buffer }[]
  }): Promise<{ memberAssignment: Buffer }>
  heartbeat(request: { groupId: string; groupGenerationId: number; memberId: string }): Promise<unknown>
  leaveGroup(request: { groupId: string; memberId: string }): Promise<unknown>
  describeGroups(request: { groupIds: readonly string[] }): Promise<{ groups: DescribedGroup[] }>
}

interface Transaction {
  readonly transactionalId: string
  readonly producerId: number
  readonly producerEpoch: number
}

interface PartitionsOf<T> {
  readonly topic: string
  readonly partitions: readonly T[]
}

export interface TopicRequest {
  readonly topic: string
  readonly numPartitions: number
  readonly replicationFactor: number
  readonly configEntries: readonly { name: string; value: string }[]
}

export interface Joined {
  readonly generationId: number
  readonly leaderId: string
  readonly memberId: string
  readonly members: readonly { memberId: string; memberMetadata: Buffer }[]
}

export interface DescribedGroup {
  readonly state: string
  readonly members: readonly { memberId: string; memberMetadata: Buffer; memberAssignment: Buffer }[]
}

interface KafkaBroker extends BrokerRequests {
  /** Versions of each request that the broker supports, by api key; null until `connect` has resolved. */
  readonly versions: Readonly<Record<number, { readonly minVersion: number; readonly maxVersion: number }>> | null
  connect(): Promise<void>
}

interface KafkaConnectionPool {
  readonly pool: KafkaConnection[]
  getConnection: () => Promise<KafkaConnection>
}

interface KafkaLogger {
  info(): void
  namespace(): KafkaLogger
}

const require = createRequire(import.meta.url)
const Broker = require('kafkajs/src/broker') as new (options: object) => KafkaBroker
const ConnectionPool = require('kafkajs/src/network/connectionPool') as new (options: object) => KafkaConnectionPool
const { createLogger } = require('kafkajs/src/loggers') as {
  createLogger: (options: { level: number; logCreator: () => (entry: LogEntry) => void }) => KafkaLogger
}
const protocolError = require('kafkajs/src/protocol/error') as {
  readonly errorCodes: object[]
  createErrorFromCode(code: number): Error
}
protocolError.errorCodes.push(...NEWER_CODES)

/**
 * After each response kafkajs starts a timer to look at its queue: with a negative time, of which Node warns, where nothing
 * throttles. Only a queue that holds a request needs the timer. This holds for every connection of the process.
 */
const { prototype: queues } = require('kafkajs/src/network/requestQueue') as { prototype: ScheduledQueue }
const schedule = queues.scheduleCheckPendingRequests
queues.scheduleCheckPendingRequests = function () {
  if (this.pending.length > 0) schedule.call(this)
}

interface ScheduledQueue {
  readonly pending: readonly unknown[]
  scheduleCheckPendingRequests: (this: ScheduledQueue) => void
}

interface LogEntry {
  readonly log: { readonly message: string; readonly error?: string; readonly broker?: string }
}

/**
 * The first version with message.timestamp.after.max.ms (KIP-937), which our topics set. The requests used are older.
 */
const MIN_KAFKA = '3.6'
const LOG_LEVEL_ERROR = 1
const CONNECTION_TIMEOUT_MS = 3000
const AUTHENTICATION_TIMEOUT_MS = 10_000
/**
 * Silence after which a request is given up, ms; JoinGroup is exempt, since it waits for the whole group. See
 * `judgeBySilence`.
 */
export const REQUEST_TIMEOUT_MS = 8000
const KEEP_ALIVE_MS = 30_000

export interface KafkaSecurity {
  /** `true`: TLS with the system's authorities. */
  readonly tls?: boolean | ConnectionOptions
  readonly sasl?: {
    readonly mechanism: 'plain' | 'scram-sha-256' | 'scram-sha-512'
    readonly username: string
    readonly password: string
  }
}

export class Network {
  readonly #clientId: string
  readonly #security: KafkaSecurity
  readonly #kafkaLogger: KafkaLogger
  readonly #sockets = new Set<Socket>()
  #closed = false

  constructor(clientId: string, security: KafkaSecurity, logger: Logger) {
    this.#clientId = clientId
    this.#security = security
    // Every error reaches the caller too, which logs what follows from it.
    const write = ({ log }: LogEntry): void => logger.debug({ broker: log.broker, error: log.error }, log.message)
    this.#kafkaLogger = createLogger({ level: LOG_LEVEL_ERROR, logCreator: () => write })
  }

  async connect(host: string, port: number, clientId = this.#clientId): Promise<BrokerConnection> {
    const address = addressOf({ host, port })
    const { tls, sasl } = this.#security
    const connectionPool = new ConnectionPool({
      host,
      port,
      ...(tls === undefined || tls === false ? {} : { ssl: tls === true ? {} : tls }),
      ...(sasl === undefined ? {} : { sasl }),
      clientId,
      socketFactory: (target: SocketTarget) => this.#open(target),
      connectionTimeout: CONNECTION_TIMEOUT_MS,
      requestTimeout: REQUEST_TIMEOUT_MS,
      enforceRequestTimeout: true,
      logger: this.#kafkaLogger,
      instrumentationEmitter: null,
    })
    for (const one of connectionPool.pool) mend(one)
    const broker = new Broker({
      connectionPool,
      logger: this.#kafkaLogger,
      authenticationTimeout: AUTHENTICATION_TIMEOUT_MS,
      allowAutoTopicCreation: false,
    })
    await broker.connect().catch((error: Error) => {
      // kafkajs leaves the socket open, and an interval running.
      for (const { socket } of connectionPool.pool as Partial<KafkaConnection>[]) socket?.destroy(error)
      throw error
    })
    const [connection] = connectionPool.pool as [KafkaConnection]
    endOnSilence(connection)
    // The pool would reconnect by itself, twice when asked twice at once. A closed connection is replaced as a whole
    // instead.
    connectionPool.getConnection = () => {
      if (connection.isConnected()) return Promise.resolve(connection)
      return Promise.reject(new RetryableError('LOG_UNAVAILABLE', `the connection to ${address} has closed`))
    }
    return new BrokerConnection(broker, connection, address)
  }

  get closed(): boolean {
    return this.#closed
  }

  /** Ends every connection now, and makes no new one. Requests under way reject. */
  close(): void {
    this.#closed = true
    for (const socket of this.#sockets) socket.destroy(new Error('the Kafka client is closed'))
  }

  #open({ host, port, ssl, onConnect }: SocketTarget): Socket {
    if (this.#closed) throw new Error('the Kafka client is closed')
    const name = isIP(host) === 0 ? { servername: host } : {}
    const onread = readResponses(
      (response) => socket.emit('data', response),
      (error) => socket.destroy(error),
    )
    const target = { host, port, onread }
    const socket: Socket = ssl ? connectTls({ ...target, ...name, ...ssl }, onConnect) : connectTcp(target, onConnect)
    // Requests are written whole: waiting to fill a packet only adds latency.
    socket.setNoDelay(true)
    socket.setKeepAlive(true, KEEP_ALIVE_MS)
    this.#sockets.add(socket)
    socket.once('close', () => this.#sockets.delete(socket))
    return socket
  }
}

interface SocketTarget {
  readonly host: string
  readonly port: number
  readonly ssl: ConnectionOptions | null
  readonly onConnect: () => void
}

export class BrokerConnection {
  readonly requests: BrokerRequests
  readonly #versions: NonNullable<KafkaBroker['versions']>
  readonly #connection: KafkaConnection
  readonly #address: string

  constructor(broker: KafkaBroker, connection: KafkaConnection, address: string) {
    this.requests = broker
    this.#versions = broker.versions ?? {}
    this.#connection = connection
    this.#address = address
  }

  /** False once it is closed: then another one is needed. */
  get alive(): boolean {
    return this.#connection.isConnected()
  }

  /**
   * Sends a request that kafkajs does not know or encodes slowly; resolves with the body of the response. Rejects with
   * ConfigurationError when the broker does not support that version.
   */
  async send(apiKey: number, apiName: string, apiVersion: number, body: readonly Buffer[]): Promise<Buffer> {
    this.#check(apiKey, apiName, apiVersion)
    const connection = this.#connection
    if (!connection.isAuthenticated()) await connection.authenticate()
    const correlationId = connection.nextCorrelationId()
    let size = HEADER_BYTES
    for (const part of body) size += part.length
    const header = Buffer.allocUnsafe(4 + HEADER_BYTES)
    header.writeInt32BE(size, 0)
    header.writeInt16BE(apiKey, 4)
    header.writeInt16BE(apiVersion, 6)
    header.writeInt32BE(correlationId, 8)
    header.writeInt16BE(-1, 12)
    if (!connection.isConnected())
      throw new RetryableError('LOG_UNAVAILABLE', 'the connection to the broker has closed')
    const { payload } = await new Promise<{ payload: Buffer }>((resolve, reject) => {
      connection.requestQueue.push({
        entry: { apiKey, apiName, apiVersion, correlationId, resolve, reject },
        expectResponse: true,
        requestTimeout: null,
        sendRequest() {
          const { socket } = connection
          socket.cork()
          socket.write(header)
          for (const part of body) socket.write(part)
          socket.uncork()
        },
      })
    })
    return payload
  }

  /** A broker that is asked for an unknown version just closes the connection. */
  #check(apiKey: number, apiName: string, apiVersion: number): void {
    const { minVersion, maxVersion } = this.#versions[apiKey] ?? { minVersion: 0, maxVersion: -1 }
    if (apiVersion >= minVersion && apiVersion <= maxVersion) return
    const known = maxVersion < 0 ? 'does not know it' : `has ${minVersion} to ${maxVersion}`
    throw new ConfigurationError(
      'LOG_MISMATCH',
      `the broker at ${this.#address} cannot be used: ${apiName} ${apiVersion} is needed, and it ${known}; ` +
        `use Kafka ${MIN_KAFKA} or newer`,
    )
  }
}

/** Api key, version, correlation id and a null client id. */
const HEADER_BYTES = 10

/** The error for an error code, with kafkajs's name for it. */
export function errorOf(code: number): Error {
  return protocolError.createErrorFromCode(code)
}

const CORRELATION_BYTES = 4

/** Interval of the checks for silence, ms. */
const LOOK_MS = 100

/** A check that is this late, ms, shows that this process stood still: what arrived meanwhile is not read yet. */
const STOOD_STILL_MS = 1_000

/**
 * An answer may take this long after it should have begun, ms, while its bytes arrive. The largest, a fetch of 8 MiB,
 * needs 70 kB/s. Answers come one after the other, so each has this time for itself.
 */
const MAX_ANSWER_MS = 120_000

/** kafkajs's connection, as far as it is used here. */
export interface KafkaConnection {
  readonly socket: Socket
  /** Set while it authenticates. */
  readonly authHandlers: object | null | undefined
  processData: (data: Buffer) => void
  isConnected(): boolean
  isAuthenticated(): boolean
  authenticate(): Promise<void>
  nextCorrelationId(): number
  readonly requestQueue: {
    /** By correlation id, in the order of sending. */
    readonly inflight: ReadonlyMap<number, SentRequest>
    requestTimeoutIntervalId: NodeJS.Timeout
    scheduleRequestTimeoutCheck: () => void
    /** A quota forbids sending until then, by Date.now(). */
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

/** Mends the faults of `connection` before it connects. */
export function mend(connection: KafkaConnection): void {
  throttleSteadily(connection.requestQueue)
  takeWhole(connection)
  judgeBySilence(connection)
}

/**
 * kafkajs waits for quotas by the time of day. If that is set back by an hour, a connection would send nothing for an
 * hour, and its queue would never be given up.
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

/** The socket gives whole responses (`readResponses`), which kafkajs would copy to look for partial ones. */
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
 * kafkajs gives up a request whose answer is not whole in time. Over a slow link a large answer takes longer, and is
 * as large when it is asked for again. Here the time counts from the last byte that arrived, on a steady clock: by the
 * time of day, everything would be given up when that is set ahead.
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
 * kafkajs gives up an unanswered request but keeps its connection. A vanished host would be asked over it for the
 * quarter of an hour that TCP takes to notice.
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
