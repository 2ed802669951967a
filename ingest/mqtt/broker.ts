import type { Duplex } from 'node:stream'
import { setImmediate as turn } from 'node:timers/promises'
import type { AuthenticateError, ConnectPacket, Subscription } from 'aedes'
import type { Logger } from 'pino'
import { ownCopy } from '../../processor/contract/json.ts'
import type { ConnectivityReason } from '../../processor/contract/status.ts'
import { type Audit, NO_AUDIT } from '../../processor/runtime/audit.ts'
import { pause, within } from '../../processor/runtime/pause.ts'
import type { Appender } from '../append/batcher.ts'
import { Bridge, type MqttClient } from '../append/bridge.ts'
import { Connection } from '../connection/connection.ts'
import { type Incomplete, Pressure } from '../connection/pressure.ts'
import { Accounts } from '../identity/accounts.ts'
import { isFilter } from '../identity/acl.ts'
import { type Guard, LoginError, type Peer } from '../identity/guard.ts'
import type { Limits } from '../limits.ts'
import type { IngestMetrics } from '../metrics.ts'
import { FastPath } from './fast-path.ts'
import { Persistence, RESUMED } from './persistence.ts'
import { Presence } from './presence.ts'
import { type Deliver, Router } from './router.ts'
import { type Epochs, Session } from './session.ts'
import { costOf, isIllFormed, isReserved } from './topics.ts'

/** Internals of aedes 1.2 that its types leave out. */
interface Client extends Omit<MqttClient, 'session'> {
  session: Session | undefined
  readonly connackSent: boolean
  readonly _parser: { parse(chunk: Buffer): number }
  readonly _keepaliveTimer: NodeJS.Timeout | null
  readonly deliver0: Deliver
  deliverQoS: Deliver
  waitForDrain(done: () => void): void
}
/** CONNACK return codes, MQTT 3.1.1 section 3.2.2.3. */
const IDENTIFIER_REJECTED = 2
const SERVER_UNAVAILABLE = 3

/** How long a stop waits for clients to read their last acks and close their end, ms. */
const FAREWELL_MS = 1_000

/** How often keepalives are extended and sessions expire, ms; the shortest keepalive is 1.5 s. */
const SWEEP_MS = 500

interface BrokerOptions {
  readonly limits: Limits
  readonly metrics: IngestMetrics
  readonly guard: Guard
  readonly appender: Appender
  readonly epochs: Epochs
  readonly logger: Logger
  /** Default: none. */
  readonly audit?: Audit
  readonly now: () => number
}

/** A stop goes on when a step takes too long. */
const giveUp = (): void => undefined

/** MQTT 3.1.1 on any stream: connections, sessions and what they may do. */
export class Broker {
  readonly presence: Presence
  readonly #bridge: Bridge
  readonly #router: Router
  readonly #persistence: Persistence
  readonly #pressure: Pressure
  readonly #limits: Limits
  readonly #metrics: IngestMetrics
  readonly #guard: Guard
  readonly #appender: Appender
  readonly #epochs: Epochs
  readonly #logger: Logger
  readonly #audit: Audit
  readonly #clients = new Set<Client>()
  /** The newest session of each client id. */
  readonly #sessions = new Map<string, Session>()
  readonly #accounts: Accounts
  #willBytes = 0
  #sweep: NodeJS.Timeout | undefined
  /** By performance.now(). */
  #sweptAt = performance.now()

  private constructor({ limits, metrics, guard, appender, epochs, logger, audit = NO_AUDIT, now }: BrokerOptions) {
    this.#limits = limits
    this.#metrics = metrics
    this.#guard = guard
    this.#appender = appender
    this.#epochs = epochs
    this.#logger = logger
    this.#audit = audit
    this.#accounts = new Accounts(limits)
    this.#pressure = new Pressure(limits, metrics, () => appender.relief)
    this.#persistence = new Persistence(limits, metrics)
    this.presence = new Presence(appender, limits, metrics, now)
    this.#bridge = new Bridge(appender, this.presence, this.#persistence.unreleased, limits, metrics, now)
    this.#bridge.onDenied = (session, topic) => this.#audit('deny', { ...factsOf(session), action: 'publish', topic })
    this.#router = new Router(limits, this.#persistence)
  }

  static async open(options: BrokerOptions): Promise<Broker> {
    const broker = new Broker(options)
    broker.#hook()
    await broker.#router.listen()
    broker.#sweep = setInterval(() => {
      broker.#spare()
      broker.#review()
      broker.#persistence.expire(performance.now())
    }, SWEEP_MS)
    return broker
  }

  get incomplete(): Incomplete {
    return this.#pressure.incomplete
  }

  /** Serves MQTT on `source`; `first`: bytes already read from it. */
  handle(source: Duplex, peer?: Peer, first?: Buffer): Connection {
    const connection = new Connection(source, this.#pressure, peer)
    const client = this.#router.handle(connection) as unknown as Client
    this.#quicken(client)
    deliverByAllFilters(client)
    this.#clients.add(client)
    this.#metrics.connections++
    this.#metrics.opened++
    connection.on('close', () => this.#closed(client))
    if (first !== undefined) connection.receive(first)
    return connection
  }

  /** Stops reading, lets acks leave, makes every device `unknown`, closes; publishes no wills. */
  async stop(): Promise<void> {
    this.#bridge.stopping = true
    clearInterval(this.#sweep)
    for (const { conn } of this.#clients) conn.stop()
    const { stopTimeoutMs } = this.#limits
    await within(this.#appender.settled(), stopTimeoutMs, giveUp)
    // Acks that wait for their turn leave in ticks of this turn of the event loop.
    await turn()
    for (const { session } of this.#clients) {
      if (session !== undefined) this.presence.end(session, 'unknown', 'server shutdown')
    }
    await within(this.presence.settled(), stopTimeoutMs, giveUp)
    const left = this.presence.stop()
    if (left > 0) this.#logger.warn({ devices: left }, 'the log did not take the shutdown of all sessions')
    const signal = AbortSignal.timeout(Math.min(stopTimeoutMs, FAREWELL_MS))
    await Promise.all([...this.#clients].map(({ conn }) => this.#close(conn, signal)))
    await new Promise<void>((resolve) => this.#router.close(resolve))
  }

  async #close(connection: Connection, signal: AbortSignal): Promise<void> {
    connection.closeReason ??= 'server shutdown'
    await connection.farewell(signal)
    connection.destroy()
  }

  #hook(): void {
    const router = this.#router
    router.authorizePublish = (client, packet, callback) => {
      this.#bridge.publish(client as unknown as MqttClient, packet, callback)
    }
    router.preConnect = (client, packet, callback) => {
      const error = this.#inspect(client as unknown as Client, packet)
      callback(error ?? null, error === undefined)
    }
    router.authenticate = (client, _username, _password, callback) => {
      const answer = (error: AuthenticateError | undefined): void => callback(error ?? null, error === undefined)
      const { session } = client as unknown as Client
      if (this.#guard.isOpen && session !== undefined) {
        session.principal = this.#guard.anyone(session.clientId)
        return answer(this.#begin(client as unknown as Client))
      }
      this.#authenticate(client as unknown as Client).then(answer, (error: Error) => {
        this.#logger.error({ err: error }, 'a client could not be authenticated')
        answer(refusal(SERVER_UNAVAILABLE, error.message))
      })
    }
    router.authorizeSubscribe = (client, subscription, callback) => {
      const { conn } = client as unknown as Client
      // aedes lets `a#` and `+a` pass.
      if (isIllFormed(subscription.topic) || !isFilter(subscription.topic))
        callback(conn.fail('malformed packet', 'ill-formed filter'))
      else if (!this.#maySubscribe(client as unknown as Client, subscription)) callback(null, null)
      // If several filters match, aedes goes by one of them; authorizeForward finds the highest QoS granted.
      else callback(null, { ...subscription, qos: 2 })
    }
    router.authorizeForward = (client, packet) => {
      const { session } = client as unknown as Client
      if (session?.principal.mayReceive(packet.topic) === false) {
        this.#metrics.denials.add('receive')
        return null
      }
      const most = (client as unknown as Client).session?.filters.atMost(packet.qos, packet.topic) ?? packet.qos
      // In place: aedes ignores what is returned here when it sends a queue after CONNECT.
      packet.qos = most === 0 && this.#persistence.isOwed(packet) ? 1 : most
      return packet
    }
    router.on('unsubscribe', (filters, client) => {
      const { conn, session } = client as unknown as Client
      const before = session?.filters.levels ?? 0
      for (const filter of filters) session?.filters.delete(filter)
      if (session?.account !== undefined) session.account.levels += session.filters.levels - before
      if (filters.some(isIllFormed)) conn.fail('malformed packet', 'ill-formed filter')
      conn.answered()
    })
    router.on('client', (client) => {
      const { session } = client as unknown as Client
      if (session !== undefined) this.presence.begin(session)
    })
    router.on('connackSent', (_packet, client) => (client as unknown as Client).conn.answered())
    router.on('clientDisconnect', (client) => this.#end(client as unknown as Client))
    router.on('keepaliveTimeout', (client) => {
      ;(client as unknown as Client).conn.closeReason ??= 'keepalive timeout'
    })
    router.on('clientError', (client, error) => this.#failed(client as unknown as Client, error))
    router.on('connectionError', (client, error) => this.#failed(client as unknown as Client, error))
    // aedes emits it when a store of its own fails; its types leave it out.
    const errors: NodeJS.EventEmitter = router
    errors.on('error', (error) => this.#logger.error({ err: error }, 'the broker reported an error'))
  }

  /** Refuses, without CONNACK, a CONNECT that the parser lets through but MQTT 3.1.1 does not. */
  #inspect(client: Client, packet: ConnectPacket): Error | undefined {
    const { will } = packet
    const { conn } = client
    if (will !== undefined && ((will.qos ?? 0) > 2 || will.topic === '' || /[+#]/.test(will.topic))) {
      return conn.fail('malformed packet', 'malformed will') // [MQTT-3.1.2-14], [MQTT-3.3.2-2]
    }
    if (packet.password !== undefined && packet.username === undefined) {
      return conn.fail('malformed packet', 'password without user name') // [MQTT-3.1.2-22]
    }
    if ([packet.clientId, packet.username ?? '', will?.topic ?? ''].some(isIllFormed)) {
      return conn.fail('malformed packet', 'ill-formed text')
    }
    // [MQTT-3.1.2-24] lets a server close a client that it takes for gone.
    if (packet.keepalive === 0) packet.keepalive = this.#limits.keepaliveSeconds
    const session = new Session(this.#epochs.next(), packet.clientId, conn, this.#metrics)
    if (will !== undefined) {
      will.payload = ownCopy(will.payload as Buffer)
      session.willBytes = will.topic.length + will.payload.length
    }
    client.session = session
    if (!this.#guard.isOpen) session.login = { username: packet.username, password: packet.password }
    // The parser keeps the packet as long as the connection, and the password is a view of a whole chunk.
    delete packet.username
    delete packet.password
    return undefined
  }

  async #authenticate(client: Client): Promise<AuthenticateError | undefined> {
    const session = client.session as Session
    const { conn } = client
    const { username, password } = session.login ?? {}
    session.login = undefined
    try {
      session.rulesVersion = this.#guard.rulesVersion
      session.principal = await this.#guard.authenticate({
        clientId: session.clientId,
        username,
        password,
        ...conn.peer,
      })
    } catch (error) {
      if (!(error instanceof LoginError)) throw error
      this.#logger.debug(
        { client: session.clientId, address: conn.peer.address, reason: error.message },
        'login refused',
      )
      const { address } = conn.peer
      this.#audit('refuse', { name: username, client: session.clientId, address, reason: error.message })
      await pause(error.afterMs)
      return refusal(error.returnCode, error.message)
    }
    return conn.destroyed ? refusal(SERVER_UNAVAILABLE, 'connection closed') : this.#begin(client)
  }

  /** Whether CONNACK accepts the session. */
  #begin(client: Client): AuthenticateError | undefined {
    const session = client.session as Session
    // [MQTT-3.1.3-8]; aedes has given the client an id of its own by now.
    if (session.clientId === '' && !client.clean)
      return refusal(IDENTIFIER_REJECTED, 'a persistent session needs a client id')
    if (session.clientId.length > this.#limits.maxClientIdLength) {
      this.#metrics.boundHits.add('client id')
      return refusal(IDENTIFIER_REJECTED, 'too long a client id') // [MQTT-3.1.3-9]
    }
    if (this.#bridge.stopping) return refusal(SERVER_UNAVAILABLE, 'the broker stops')
    const fault = this.#appender.faultFor(session.clientId)
    if (fault !== undefined) return refusal(SERVER_UNAVAILABLE, fault.message)
    const { principal, connection } = session
    const account = this.#accounts.of(principal.id, connection.peer.address)
    const { maxWillBytes, maxWillBytesPerClient, maxConnectionsPerName } = this.#limits
    if (
      this.#willBytes + session.willBytes > maxWillBytes ||
      account.willBytes + session.willBytes > maxWillBytesPerClient
    ) {
      this.#metrics.boundHits.add('will bytes')
      return refusal(SERVER_UNAVAILABLE, 'too many wills are stored')
    }
    if (principal.id !== '' && account.connections >= maxConnectionsPerName) {
      this.#metrics.refusals.add('too many connections of one name')
      return refusal(SERVER_UNAVAILABLE, `${principal.id} has too many connections`)
    }
    session.accepted = true
    this.#audit('connect', factsOf(session))
    session.account = account
    connection.pace = account.pace
    this.#accounts.open(account)
    account.willBytes += session.willBytes
    this.#willBytes += session.willBytes
    const before = this.#sessions.get(client.id)
    if (before !== undefined) {
      before.takenOver = true
      before.connection.closeReason ??= 'taken over'
    }
    this.#sessions.set(client.id, session)
    this.#persistence.came(client.id)
    // A session must not bring what its client may read no more.
    for (const filter of this.#persistence.filtersOf(client.id)) {
      if (session.principal.maySubscribe(filter)) continue
      void this.#persistence.cleanSubscriptions({ id: client.id })
      break
    }
    return undefined
  }

  #maySubscribe(client: Client, subscription: Subscription): boolean {
    const { topic, qos } = subscription
    // `$SYS/` would tell of other clients; `$share/` is of MQTT 5.
    if (subscription === RESUMED || isReserved(topic)) return false
    const { filters, principal, account } = client.session as Session
    if (account === undefined) return false
    if (!principal.maySubscribe(topic)) {
      this.#metrics.denials.add('subscribe')
      this.#audit('deny', { ...factsOf(client.session as Session), action: 'subscribe', topic })
      return false
    }
    const { levels, wildcards } = costOf(topic)
    const limits = this.#limits
    const full =
      topic.length > limits.maxFilterLength ||
      levels > limits.maxFilterLevels ||
      wildcards > limits.maxFilterWildcards ||
      filters.levels + levels > limits.maxSubscriptionLevels ||
      account.levels + levels > limits.maxSubscriptionLevelsPerClient ||
      this.#router.levels + levels > limits.maxSubscriptionLevelsTotal
    if (
      (full && !filters.has(topic)) ||
      (!client.clean && !this.#persistence.store(client.id, subscription, account.key))
    ) {
      this.#metrics.boundHits.add('subscriptions')
      return false
    }
    account.levels -= filters.levels
    filters.set(topic, qos)
    account.levels += filters.levels
    return true
  }

  #quicken(client: Client): void {
    const path = new FastPath(client, this.#bridge, this.#router)
    client._parser.parse = (chunk) => {
      // The parser throws at some malformed packets.
      try {
        path.parse(chunk)
      } catch (error) {
        client.conn.fail('malformed packet', String(error))
      }
      return 0
    }
  }

  #failed({ conn, session }: Client, error: Error & { errorCode?: number }): void {
    if (error.errorCode !== undefined) {
      conn.closeReason ??= 'refused'
      this.#metrics.refusals.add(
        error.errorCode === SERVER_UNAVAILABLE ? 'server unavailable' : `return code ${error.errorCode}`,
      )
    } else if (error.message.startsWith('maxInflightInbound')) conn.closeReason ??= 'too many in flight'
    else if (error.message === 'drain timeout') conn.closeReason ??= 'slow reader'
    else if (error.message === 'connect did not arrive in time') conn.closeReason ??= 'no connect'
    else if (error.message === 'connection closed') conn.closeReason ??= 'connection lost'
    else conn.closeReason ??= 'malformed packet'
    this.#logger.debug({ client: session?.clientId, reason: conn.closeReason, err: error }, 'connection closed')
  }

  #closed(client: Client): void {
    this.#clients.delete(client)
    this.#metrics.connections--
    const { conn } = client
    this.#metrics.closes.add(conn.closeReason ?? (conn.disconnecting ? 'client disconnect' : 'connection lost'))
    // aedes ends the session after its will; if it did not, the session ends here.
    setImmediate(() => setImmediate(() => this.#end(client)))
  }

  #end(client: Client): void {
    const { session } = client
    if (session === undefined || session.ended || !session.accepted) return
    this.presence.end(session, 'offline', endReason(session))
    this.#willBytes -= session.willBytes
    if (session.account !== undefined) {
      session.account.willBytes -= session.willBytes
      session.account.levels -= session.filters.levels
      this.#accounts.close(session.account)
    }
    if (this.#sessions.get(client.id) !== session) return
    this.#sessions.delete(client.id)
    if (!client.clean) this.#persistence.went(client.id, performance.now())
  }

  /** Ends connections whose credential is over, or whose filters go beyond what they may read now. */
  #review(): void {
    if (this.#guard.isOpen && this.#guard.rulesVersion === 0) return
    const { rulesVersion } = this.#guard
    for (const { conn, session } of this.#clients) {
      if (session === undefined || !session.accepted) continue
      const { principal } = session
      if (this.#guard.isOver(principal)) {
        conn.fail('credential over')
        this.#audit('revoke', { ...factsOf(session), reason: 'credential over' })
      } else if (session.rulesVersion !== rulesVersion) {
        session.rulesVersion = rulesVersion
        this.#guard.renew(principal)
        for (const filter of session.filters.all()) {
          if (principal.maySubscribe(filter)) continue
          conn.fail('not allowed', `may not subscribe to ${filter} any more`)
          this.#audit('revoke', { ...factsOf(session), reason: 'may not subscribe any more', topic: filter })
          break
        }
      }
    }
  }

  #spare(): void {
    const now = performance.now()
    // Timers run before sockets: a process that stood still has not read yet what was sent to it.
    const stoodStill = now - this.#sweptAt > 2 * SWEEP_MS
    this.#sweptAt = now
    for (const client of this.#clients) {
      // Once for each silence: a process that often stands still must not keep clients that are gone.
      if (client.conn.heldBack || (stoodStill && !client.conn.spared)) client._keepaliveTimer?.refresh()
      client.conn.spared ||= stoodStill
      // aedes waits for a drain only after its own writes, not after acks of the fast path.
      if (client.conn.clogged) client.waitForDrain(() => undefined)
    }
  }
}

/**
 * The highest QoS that a filter grants decides [MQTT-3.3.5-1]. If that is QoS 0, aedes would still give the message a packet
 * id and update the queue of a persistent session: a search of the whole queue that may even replace a waiting PUBREL.
 */
function deliverByAllFilters(client: Client): void {
  const { deliver0, deliverQoS } = client
  client.deliverQoS = (packet, done) => {
    const most = client.session?.filters.atMost(packet.qos, packet.topic) ?? packet.qos
    if (most === 0) deliver0(packet, done)
    else deliverQoS(packet, done)
  }
}

function factsOf({ principal, clientId, connection }: Session): Record<string, string> {
  const { id, credential } = principal
  return { name: id, client: clientId, address: connection.peer.address, credential: credential.credentialId }
}

function endReason({ connection, takenOver }: Session): ConnectivityReason {
  if (connection.disconnecting) return 'client disconnect'
  if (takenOver) return 'taken over'
  return connection.closeReason === 'keepalive timeout' ? 'keepalive timeout' : 'connection lost'
}

function refusal(returnCode: number, message: string): AuthenticateError {
  // Its type is a const enum that exists only in the declarations of aedes.
  const error: unknown = Object.assign(new Error(message), { returnCode })
  return error as AuthenticateError
}
