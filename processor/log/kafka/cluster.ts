import type { Logger } from 'pino'
import { addressOf, hostAndPort } from '../../contract/address.ts'
import { ConfigurationError, RetryableError, reasonOf, repartitioned, TidemarkError } from '../../contract/errors.ts'
import { Backoff, pause } from '../../runtime/pause.ts'
import { type BrokerConnection, errorOf, type Network } from './protocol/broker.ts'
import { isTransient, typeOf } from './protocol/errors.ts'
import {
  decodeMetadata,
  encodeRequest,
  METADATA,
  METADATA_VERSION,
  type Metadata,
  newest,
} from './protocol/metadata.ts'

export const GROUP_COORDINATOR = 0
export const TRANSACTION_COORDINATOR = 1

/** The lane of rare requests that are no work of a partition. */
export const CONTROL_LANE = 'control'

const MIN_BACKOFF_MS = 10
const MAX_BACKOFF_MS = 500
const CONCURRENT_WAIT_MS = 5
const UNKNOWN_TOPIC = 3
/** A broker that has not answered by then is not waited for alone: the next one is asked as well, ms. */
const HEDGE_MS = 500
/** A broker that failed or was that slow is asked last for this long, ms. */
const SILENCE_MS = 5000
/** Addresses named in a message. */
const MAX_NAMED = 3

/**
 * Finds brokers, leaders and coordinators, and connects to them. Each lane has its own connections: a broker answers
 * one connection's requests in order, so a slow answer holds up only its own lane.
 */
export class KafkaCluster {
  readonly ids = new TopicIds()
  readonly #check = new TopicCheck(this.ids, (connection, topics) => this.#ask(connection, topics))
  readonly #seeds: readonly string[]
  readonly #topics: readonly string[]
  readonly #network: Network
  readonly #logger: Logger
  readonly #connections = new Map<string, Promise<BrokerConnection>>()
  readonly #coordinators = new Map<string, number>()
  /** Client ids of lanes that have their own. */
  readonly #clientIds = new Map<string, string>()
  #metadata: Metadata | undefined
  /** Address of the broker that answered last. */
  #answering = ''
  /** Silent brokers by address, and until when they are asked last. */
  readonly #silent = new Map<string, number>()
  #refreshing: Promise<Metadata> | undefined

  constructor(seeds: readonly string[], topics: readonly string[], network: Network, logger: Logger) {
    this.#seeds = seeds.map((seed) => addressOf(hostAndPort(seed)))
    this.#topics = topics
    this.#network = network
    this.#logger = logger
  }

  /** New connections of `lane` have this client id. */
  introduce(lane: string, clientId: string): void {
    this.#clientIds.set(lane, clientId)
  }

  metadata(): Promise<Metadata> {
    return this.#metadata === undefined ? this.refresh() : Promise.resolve(this.#metadata)
  }

  /**
   * Asks brokers in turn until one answers: one that is cut off from the others answers as well as ever, with former
   * leaders. Calls made meanwhile share the answer.
   */
  refresh(): Promise<Metadata> {
    this.#refreshing ??= this.#refresh().finally(() => {
      this.#refreshing = undefined
    })
    return this.#refreshing
  }

  async #refresh(): Promise<Metadata> {
    const told = await firstAnswer(this.#addresses(), (address) => this.#hear(address))
    this.#metadata = newest(this.#metadata, told)
    return this.#metadata
  }

  /**
   * Refreshes, and shows that a broker answers at the address that the cluster lists (advertised.listeners): all work
   * goes there. The configured addresses may lead to a balancer or another listener, and answer when no listed one
   * does.
   */
  async probe(): Promise<Metadata> {
    const metadata = await this.refresh()
    const answering = this.#answering
    const addresses = listed(metadata)
    if (!addresses.includes(answering)) {
      await firstAnswer(addresses, (address) => this.#hear(address)).catch((error: unknown) => {
        throw isTransient(error) ? unreachable(answering, addresses, error) : error
      })
    }
    return metadata
  }

  /** In the order in which brokers are asked. */
  #addresses(): Set<string> {
    const known = this.#metadata === undefined ? [] : listed(this.#metadata)
    const after = known.indexOf(this.#answering) + 1
    const now = performance.now()
    const last = (address: string): number => ((this.#silent.get(address) ?? 0) > now ? 1 : 0)
    const turn = [...known.slice(after), ...known.slice(0, after)].sort((a, b) => last(a) - last(b))
    return new Set([...turn, ...this.#seeds])
  }

  async #hear(address: string): Promise<Metadata> {
    const silence = (): void => void this.#silent.set(address, performance.now() + SILENCE_MS)
    const slow = setTimeout(silence, HEDGE_MS)
    try {
      const answer = await this.#ask(await this.#connect('metadata', address), this.#topics)
      // A broker that has just started may know no broker yet.
      if (answer.nodes.size === 0) throw errorOf(UNKNOWN_TOPIC)
      this.#answering = address
      this.#silent.delete(address)
      return answer
    } catch (error) {
      this.#disconnect('metadata', address)
      silence()
      throw error
    } finally {
      clearTimeout(slow)
    }
  }

  async #ask(connection: BrokerConnection, topics: readonly string[]): Promise<Metadata> {
    const answer = decodeMetadata(
      await connection.send(METADATA, 'Metadata', METADATA_VERSION, [encodeRequest(topics)]),
    )
    const fault = this.ids.see(answer.topics, performance.now())
    if (fault !== undefined) this.#logger.error({ err: fault }, 'a topic is not the one that the log was opened with')
    const grown = this.ids.grown(answer.topics)
    if (grown !== undefined) this.#logger.error({ err: grown }, 'partitions were added to a topic')
    return answer
  }

  /** Why the answers of `leader` about positions in `topic`, all given before this call, are not to be trusted. */
  doubt(topic: string, leader: number, connection: BrokerConnection): Promise<TidemarkError | undefined> {
    return this.#check.doubt(topic, leader, connection)
  }

  /** Node id of the leader, -1 while there is none. */
  async leader(topic: string, partition: number): Promise<number> {
    const { topics } = await this.metadata()
    return topics.get(topic)?.leaders[partition] ?? -1
  }

  async connection(lane: string, nodeId: number): Promise<BrokerConnection> {
    const node = (await this.metadata()).nodes.get(nodeId)
    if (nodeId < 0)
      throw new RetryableError(
        'LOG_UNAVAILABLE',
        'the partition has no leader: its brokers are away, or its topic was deleted',
      )
    if (node === undefined) throw new RetryableError('LOG_UNAVAILABLE', `broker ${nodeId} is not among the live ones`)
    return this.#connect(lane, addressOf(node))
  }

  /** The broker that answered last: a dead one stays in the metadata until the controller notices, 9 s by default. */
  async anyConnection(lane: string): Promise<BrokerConnection> {
    await this.metadata()
    return this.#connect(lane, this.#answering)
  }

  async coordinator(lane: string, type: number, key: string): Promise<BrokerConnection> {
    const name = `${type} ${key}`
    let nodeId = this.#coordinators.get(name)
    if (nodeId === undefined) {
      const any = await this.anyConnection(lane)
      const found = await any.requests.findGroupCoordinator({ groupId: key, coordinatorType: type })
      nodeId = found.coordinator.nodeId
      this.#coordinators.set(name, nodeId)
    }
    return this.connection(lane, nodeId)
  }

  /**
   * Repeats `attempt` while its errors are transient, for `timeoutMs`, and refreshes the metadata in between. Rejects
   * with the error of the last attempt.
   */
  async retry<T>(patienceMs: number, signal: AbortSignal | undefined, attempt: () => Promise<T>): Promise<T> {
    const deadline = performance.now() + patienceMs
    const backoff = new Backoff(MIN_BACKOFF_MS, MAX_BACKOFF_MS)
    for (;;) {
      try {
        return await attempt()
      } catch (error) {
        if (this.#network.closed) throw new RetryableError('LOG_CLOSED', 'the log is closed', error)
        // The last transaction's markers are still being written (KIP-98): the coordinator is right, and the wait is
        // short.
        const concurrent = typeOf(error) === 'CONCURRENT_TRANSACTIONS'
        if (concurrent) backoff.reset()
        const waitMs = concurrent ? CONCURRENT_WAIT_MS : backoff.next()
        if (!isTransient(error) || performance.now() + waitMs > deadline || signal?.aborted) throw error
        if (!concurrent) await this.forget()
        await pause(waitMs, signal)
      }
    }
  }

  /** Forgets coordinators and refreshes the metadata. Does not reject. */
  async forget(): Promise<void> {
    this.#coordinators.clear()
    // When no broker answers, the next attempt says so.
    await this.refresh().catch((error: unknown) => this.#logger.debug({ err: error }, 'no broker gives metadata'))
  }

  async #connect(lane: string, address: string): Promise<BrokerConnection> {
    const name = `${lane} ${address}`
    const present = this.#connections.get(name)
    if (present !== undefined) {
      const connection = await present
      if (connection.alive) return connection
      if (this.#connections.get(name) === present) this.#connections.delete(name)
    }
    let opening = this.#connections.get(name)
    if (opening === undefined) {
      const { host, port } = hostAndPort(address)
      opening = this.#network.connect(host, port, this.#clientIds.get(lane))
      this.#connections.set(name, opening)
      opening.catch(() => this.#connections.delete(name))
    }
    return opening
  }

  #disconnect(lane: string, address: string): void {
    this.#connections.delete(`${lane} ${address}`)
  }
}

function listed({ nodes }: Metadata): string[] {
  return [...nodes.values()].map(addressOf)
}

function unreachable(answering: string, addresses: readonly string[], cause: unknown): RetryableError {
  const more = addresses.length > MAX_NAMED ? ', …' : ''
  const brokers = addresses.length > 1 ? 'its brokers are' : 'it is'
  return new RetryableError(
    'BROKERS_UNREACHABLE',
    `Kafka at ${answering} answers, but says that ${brokers} at ${addresses.slice(0, MAX_NAMED).join(', ')}${more}, ` +
      `which cannot be reached (${reasonOf(cause)}): correct advertised.listeners of its brokers, or the network or the ` +
      'names on this host',
    cause,
  )
}

/**
 * Resolves with the first answer. The next address is asked as well when one fails or takes long; rejects when all
 * fail.
 */
function firstAnswer<T>(addresses: Iterable<string>, ask: (address: string) => Promise<T>): Promise<T> {
  const { promise, resolve, reject } = Promise.withResolvers<T>()
  const left = [...addresses]
  let [waiting, timer]: [number, NodeJS.Timeout | undefined] = [0, undefined]
  const hear = async (address: string): Promise<void> => {
    try {
      resolve(await ask(address))
      left.length = 0
      clearTimeout(timer)
    } catch (error) {
      waiting--
      if (waiting === 0 && left.length === 0) reject(error)
      else askNext()
    }
  }
  const askNext = (): void => {
    clearTimeout(timer)
    const address = left.shift()
    if (address === undefined) return
    waiting++
    void hear(address)
    timer = setTimeout(askNext, HEDGE_MS)
  }
  askNext()
  return promise
}

/**
 * A topic counts as created anew when brokers tell another id for this long, ms, and none the known one in between. A
 * broker whose metadata is behind tells the old id; it is behind for much less, or cut off from the others.
 */
const BELIEVED_AFTER_MS = 2000
/** The id that a broker without topic ids tells (KIP-516): zeros. */
const NO_ID = Buffer.alloc(16).toString('base64url')

type Told = ReadonlyMap<string, { readonly id: string; readonly leaders: readonly number[] }>

/**
 * Whether topics are still those that the log was opened with. A topic that is deleted and created anew has the same
 * name and answers as usual, but offsets of the former one mean nothing in it.
 */
export class TopicIds {
  readonly #known = new Map<string, string>()
  readonly #partitions = new Map<string, number>()
  /** Since when another id is told, ms on the clock of `see`. */
  readonly #since = new Map<string, number>()
  readonly #recreated = Promise.withResolvers<never>()
  #fault: ConfigurationError | undefined

  constructor() {
    // A process without members does not listen.
    this.#recreated.promise.catch(() => {})
  }

  /** Rejects with LOG_MISMATCH once a topic counts as created anew. */
  get recreated(): Promise<never> {
    return this.#recreated.promise
  }

  hold(topic: string, id: string, partitions: number): void {
    if (id === NO_ID) return
    this.#known.set(topic, id)
    this.#partitions.set(topic, partitions)
  }

  /** False for a topic whose id is not known, of which nothing can be doubted. */
  holds(topic: string): boolean {
    return this.#known.has(topic)
  }

  /** Notes what a broker told at `now`, ms. Returns the fault when a topic counts as created anew from now on. */
  see(topics: Told, now: number): ConfigurationError | undefined {
    if (this.#fault !== undefined) return undefined
    for (const [topic, known] of this.#known) {
      const told = topics.get(topic)?.id
      // A topic may be missing while its partitions have no leaders.
      if (told === undefined || told === NO_ID) continue
      if (told === known) {
        this.#since.delete(topic)
        continue
      }
      const since = this.#since.get(topic) ?? now
      this.#since.set(topic, since)
      if (now - since < BELIEVED_AFTER_MS) continue
      this.#fault = recreated(topic, known, told)
      this.#recreated.reject(this.#fault)
      return this.#fault
    }
    return undefined
  }

  /**
   * The reason why no process will start any more, once for each topic: partitions were added. Running processes go on
   * with the old ones.
   */
  grown(topics: Told): ConfigurationError | undefined {
    for (const [topic, partitions] of this.#partitions) {
      const told = topics.get(topic)
      if (told?.id !== this.#known.get(topic) || told === undefined || told.leaders.length <= partitions) continue
      this.#partitions.delete(topic)
      return repartitioned(
        `topic ${topic} has ${told.leaders.length} partitions, and had ${partitions} when this process began: it goes on ` +
          'with those, but no process can begin any more',
      )
    }
    return undefined
  }

  /**
   * Why a broker's answer about positions in `topic` is not to be trusted, by the metadata `topics` that it told
   * afterwards. Retryable until the topic counts as created anew.
   */
  doubt(topic: string, topics: Told): TidemarkError | undefined {
    const known = this.#known.get(topic)
    if (known === undefined) return undefined
    if (this.#fault !== undefined) return this.#fault
    const told = topics.get(topic)?.id
    if (told === known || told === NO_ID) return undefined
    const what = told === undefined ? 'is not known to its leader' : `has the id ${told}, and had ${known}`
    return new RetryableError('LOG_UNAVAILABLE', `topic ${topic} ${what}: it is being deleted, or was created anew`)
  }
}

function recreated(topic: string, known: string, told: string): ConfigurationError {
  return new ConfigurationError(
    'LOG_MISMATCH',
    `topic ${topic} was deleted and created anew while it was used (its id is ${told}, and was ${known}): what it held is ` +
      'gone, and offsets of it mean nothing now; to begin anew too, stop all processors, delete the changelog topic and ' +
      'the group (kafka-consumer-groups --delete), and start them again',
  )
}

/** Questions to one leader about one topic. */
interface Asking {
  underWay: Promise<Metadata> | undefined
  /** Begins after the answer to the one under way. */
  next: Promise<Metadata> | undefined
}

/**
 * Asks leaders whether a topic is still the one that the log was opened with: a leader of a partition knows the new id
 * no later than it answers for it. The answer covers all partitions, so each leader is asked one question at a time.
 */
class TopicCheck {
  readonly #ids: TopicIds
  readonly #ask: (connection: BrokerConnection, topics: readonly string[]) => Promise<Metadata>
  readonly #asking = new Map<string, Asking>()

  constructor(ids: TopicIds, ask: (connection: BrokerConnection, topics: readonly string[]) => Promise<Metadata>) {
    this.#ids = ids
    this.#ask = ask
  }

  /**
   * Why the positions that `leader` gave in `topic` are not to be trusted. Called after they were given: a topic
   * created anew in between must show in this answer.
   */
  async doubt(topic: string, leader: number, connection: BrokerConnection): Promise<TidemarkError | undefined> {
    if (!this.#ids.holds(topic)) return undefined
    const name = `${leader} ${topic}`
    const asking = this.#asking.get(name) ?? { underWay: undefined, next: undefined }
    this.#asking.set(name, asking)
    asking.next ??= this.#after(asking, () => this.#ask(connection, [topic]))
    const { topics } = await asking.next
    return this.#ids.doubt(topic, topics)
  }

  async #after(asking: Asking, ask: () => Promise<Metadata>): Promise<Metadata> {
    await asking.underWay?.catch(() => {})
    // A later call needs a later answer.
    asking.next = undefined
    asking.underWay = ask()
    return asking.underWay
  }
}
