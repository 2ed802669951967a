import { connect, isIPv4, type Socket } from 'node:net'
import type { Logger } from 'pino'
import { hostAndPort } from '../../../contract/address.ts'
import type { Peer } from './membership.ts'

export const PING_INTERVAL_MS = 300
/** Without any answer for so long a peer is taken for frozen, or cut off. */
export const SILENCE_MS = 1200
const CONNECT_TIMEOUT_MS = 500
/** A process that has taken a connection may only be busy: before its name goes to another, it has longer than peers give it. */
const ANSWER_TIMEOUT_MS = SILENCE_MS + 800
/** A process that is dying may still take a connection, and drop it: asked again so soon, and so often, it will not. */
const RECONNECT_MS = 25
const MAX_RECONNECTS = 10
/** A peer that could never be reached is not judged: who knows what stands between. */
const RETRY_MS = 1000
/** Any answer will do; the endpoint is HTTP. */
const PING = 'GET /livez HTTP/1.1\r\nHost: peer\r\n\r\n'
const LAST_PING = PING.replace('\r\n\r\n', '\r\nConnection: close\r\n\r\n')
const MAX_ANSWER_CHARACTERS = 4096
const SUSPECT_AGAIN_MS = 2000

/**
 * Whether the host of `endpoint` answers that nobody listens there, or a live process there that it is `instance`. All
 * else tells nothing: silence, unknown names, another process.
 */
export function look(endpoint: string, instance: string): Promise<'refused' | 'answers' | undefined> {
  return ask(endpoint, instance, CONNECT_TIMEOUT_MS)
}

/** Whether a live process at `endpoint` says that it is `instance`. One that is frozen does not say so. */
export async function answersAs(endpoint: string, instance: string): Promise<boolean> {
  return (await ask(endpoint, instance, ANSWER_TIMEOUT_MS)) === 'answers'
}

function ask(endpoint: string, instance: string, patienceMs: number): Promise<'refused' | 'answers' | undefined> {
  return new Promise((resolve) => {
    const socket = connect(hostAndPort(endpoint))
    let answer = ''
    const end = (): void => {
      socket.destroy()
      resolve(answer.includes(`"instance":${JSON.stringify(instance)}`) ? 'answers' : undefined)
    }
    onSilence(socket, CONNECT_TIMEOUT_MS, end)
    socket.once('connect', () => {
      socket.setTimeout(patienceMs)
      socket.write(LAST_PING)
    })
    socket.setEncoding('utf8').on('data', (text: string) => {
      answer += text
      if (answer.length > MAX_ANSWER_CHARACTERS) end()
    })
    socket.once('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'ECONNREFUSED') resolve('refused')
      end()
    })
    socket.once('close', end)
  })
}

/**
 * Calls `silent` when nothing came by the socket for its timeout, `ms` at first. What has come by then, and was not read, as this
 * process was frozen itself, counts.
 */
function onSilence(socket: Socket, ms: number, silent: () => void): void {
  let heard = 0
  for (const event of ['connect', 'data']) socket.on(event, () => heard++)
  socket.setTimeout(ms)
  socket.on('timeout', () => {
    const before = heard
    // Timers come before sockets in a turn of the event loop, immediates after them.
    setImmediate(() => {
      if (heard === before) silent()
    })
  })
}

/** Whether nobody on another host reaches `host`. */
export function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || (isIPv4(host) && host.startsWith('127.'))
}

interface Pinged {
  readonly peer: Peer
  socket: Socket | undefined
  /** Whether the peer has ever answered. */
  known: boolean
  lastAnswer: number
  nextTry: number
  reconnects: number
  suspectedAt: number
}

/**
 * Notices dead peers sooner than the group does (its session timeout is seconds), by a connection to each that the
 * leader told of (watches.ts). One that closes, and is then refused, belongs to a process that is gone; one that is silent, to a process that
 * is frozen or cut off. A wrong suspicion costs a rebalance, never a wrong write: claims are fenced.
 */
export class KafkaPeers {
  readonly #logger: Logger
  readonly #suspect: (memberId: string) => void
  readonly #parted: () => void
  readonly #pinged = new Map<string, Pinged>()
  #timer: NodeJS.Timeout | undefined
  #lastTick = 0

  /**
   * `suspect` is called with the member id of a peer that seems dead, again and again while it stays in the group;
   * `parted` when a peer closed its connection, as it does after it left.
   */
  constructor(logger: Logger, suspect: (memberId: string) => void, parted: () => void) {
    this.#logger = logger
    this.#suspect = suspect
    this.#parted = parted
  }

  watch(peers: readonly Peer[]): void {
    const ids = new Set(peers.map(({ memberId }) => memberId))
    for (const [id, watched] of this.#pinged) {
      if (ids.has(id)) continue
      this.#pinged.delete(id)
      watched.socket?.destroy()
    }
    if (peers.length === 0) return this.#rest()
    if (this.#timer === undefined) {
      this.#lastTick = performance.now()
      this.#timer = setInterval(() => this.#tick(), PING_INTERVAL_MS)
    }
    for (const peer of peers) {
      if (this.#pinged.has(peer.memberId)) continue
      const never = Number.NEGATIVE_INFINITY
      const watched = {
        peer,
        socket: undefined,
        known: false,
        lastAnswer: 0,
        nextTry: 0,
        reconnects: 0,
        suspectedAt: never,
      }
      this.#pinged.set(peer.memberId, watched)
      this.#connect(watched)
    }
  }

  close(): void {
    this.watch([])
  }

  #rest(): void {
    clearInterval(this.#timer)
    this.#timer = undefined
  }

  #tick(): void {
    const now = performance.now()
    // This process was frozen itself: the answers of its peers are there, but not read yet.
    const frozen = now - this.#lastTick > PING_INTERVAL_MS * 2
    this.#lastTick = now
    for (const watched of this.#pinged.values()) {
      if (watched.socket === undefined) {
        if (now >= watched.nextTry) this.#connect(watched)
        continue
      }
      if (!watched.known) continue
      if (frozen) watched.lastAnswer = now
      else if (now - watched.lastAnswer > SILENCE_MS) this.#report(watched, 'is silent')
      watched.socket.write(PING)
    }
  }

  #connect(watched: Pinged): void {
    const { endpoint } = watched.peer
    const socket = connect(hostAndPort(endpoint))
    watched.socket = socket
    let connected = false
    let answered = false
    // A process that waits to end is not kept by its watch.
    socket.unref()
    socket.setNoDelay(true)
    onSilence(socket, CONNECT_TIMEOUT_MS, () => {
      if (!connected) socket.destroy()
    })
    socket.on('connect', () => {
      connected = true
      socket.setTimeout(0)
      watched.lastAnswer = performance.now()
      socket.write(PING)
    })
    socket.on('data', () => {
      answered = true
      watched.reconnects = 0
      watched.known = true
      watched.lastAnswer = performance.now()
    })
    // What follows from it is decided on `close`.
    socket.on('error', (error) => this.#logger.debug({ err: error, endpoint }, 'peer'))
    socket.on('close', () => this.#closed(watched, socket, connected, answered))
  }

  #closed(watched: Pinged, socket: Socket, connected: boolean, answered: boolean): void {
    if (!this.#isPinged(watched) || watched.socket !== socket) return
    watched.socket = undefined
    // A server closes a connection for many reasons; whether it takes another one tells.
    if (answered) {
      this.#parted()
      return this.#connect(watched)
    }
    watched.nextTry = performance.now() + RETRY_MS
    if (watched.known && connected && watched.reconnects++ < MAX_RECONNECTS) {
      setTimeout(() => {
        if (this.#isPinged(watched) && watched.socket === undefined) this.#connect(watched)
      }, RECONNECT_MS).unref()
    }
    if (watched.known && !connected) this.#report(watched, 'takes no connection')
  }

  #isPinged(watched: Pinged): boolean {
    return this.#pinged.get(watched.peer.memberId) === watched
  }

  #report(watched: Pinged, why: string): void {
    const now = performance.now()
    if (now - watched.suspectedAt < SUSPECT_AGAIN_MS) return
    watched.suspectedAt = now
    const { memberId, endpoint } = watched.peer
    this.#logger.warn({ memberId, endpoint }, `peer ${why}; it is taken for dead`)
    this.#suspect(memberId)
  }
}

/** What of a member tells with whom it may die. */
export interface PingCandidate {
  readonly memberId: string
  readonly instance: string
  readonly host: string
  readonly zone?: string | undefined
}

/**
 * Watches of all members together, each an id in the one record that Kafka keeps of the group: up to 39 members watch
 * everyone, 100 members 15 others each.
 */
const MAX_PINGS = 1536

/** Others whom a member watches at least, where there are so many. */
const MIN_PINGED = 8

/** So many others each of `members` watches, and is watched by. */
export function pingsPerMember(members: number): number {
  return Math.min(members - 1, Math.max(MIN_PINGED, Math.floor(MAX_PINGS / members)))
}

/**
 * Whom each of the members watches. Members of one zone, and of one host in it, stand beside each other in a ring, and
 * those who watch one of them are spread evenly over all of it: of members beside each other that die at once, each is
 * watched by one that lives, unless fewer live than one in `pingsPerMember` + 1. Pure, and the same in any order of `members`.
 */
export function pingTargets<T extends PingCandidate>(members: readonly T[]): Map<T, T[]> {
  const ring = [...members].sort(byNearness)
  const count = pingsPerMember(ring.length)
  const steps = Array.from({ length: count }, (_, i) => Math.round(((i + 1) * ring.length) / (count + 1)))
  return new Map(ring.map((member, at) => [member, steps.map((step) => ring[(at + step) % ring.length] as T)]))
}

function byNearness(a: PingCandidate, b: PingCandidate): number {
  const [left, right] = [placeOf(a), placeOf(b)]
  const i = left.findIndex((part, at) => part !== right[at])
  return i < 0 ? 0 : (left[i] as string) < (right[i] as string) ? -1 : 1
}

function placeOf({ zone = '', host, instance, memberId }: PingCandidate): string[] {
  return [zone, host, instance, memberId]
}
