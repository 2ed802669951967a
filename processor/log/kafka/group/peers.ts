import { connect, isIPv4, type Socket } from 'node:net'
import type { Logger } from 'pino'
import { hostAndPort } from '../../../contract/address.ts'
import type { Peer } from './membership.ts'

export const PING_INTERVAL_MS = 300
/** A peer that is silent for this long is taken for frozen or cut off, ms. */
export const SILENCE_MS = 1200
const CONNECT_TIMEOUT_MS = 500
/**
 * A process that accepts a connection may only be busy. Before its name is given to another process it has longer than
 * its peers give it, ms.
 */
const ANSWER_TIMEOUT_MS = SILENCE_MS + 800
/** A dying process may still accept connections and drop them. It is asked again this soon, ms, and this often. */
const RECONNECT_MS = 25
const MAX_RECONNECTS = 10
/** A peer that was never reached is tried again after this, ms, and never suspected: a firewall may stand between. */
const RETRY_MS = 1000
/** Any answer counts; the endpoint is HTTP. */
const PING = 'GET /livez HTTP/1.1\r\nHost: peer\r\n\r\n'
const LAST_PING = PING.replace('\r\n\r\n', '\r\nConnection: close\r\n\r\n')
const MAX_ANSWER_CHARACTERS = 4096
const SUSPECT_AGAIN_MS = 2000

interface Pinged {
  readonly peer: Peer
  socket: Socket | undefined
  known: boolean
  lastAnswer: number
  nextTry: number
  reconnects: number
  suspectedAt: number
}

/**
 * Notices dead peers in about a second, where the group's session timeout takes ten: it pings the members that the
 * leader named (`pingTargets`). A connection that closes and is then refused means that the process is gone; silence,
 * that it is frozen or cut off. A wrong suspicion costs a rebalance, never a wrong write: claims are fenced.
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
    // This process was frozen itself, and has not read its peers' answers yet.
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
    // These sockets do not keep a process alive that is about to end.
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
    socket.on('error', (error) => this.#logger.debug({ err: error, endpoint }, 'peer'))
    socket.on('close', () => this.#closed(watched, socket, connected, answered))
  }

  #closed(watched: Pinged, socket: Socket, connected: boolean, answered: boolean): void {
    if (!this.#isPinged(watched) || watched.socket !== socket) return
    watched.socket = undefined
    // A server closes connections for many reasons. Whether it accepts a new one shows that it lives.
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

/** Where a member runs: members of one host or zone may die together. */
export interface PingCandidate {
  readonly memberId: string
  readonly instance: string
  readonly host: string
  readonly zone?: string | undefined
}

/**
 * Each ping target is a member id in the one record in which Kafka keeps the group. With this bound, up to 39 members
 * ping everyone, and each of 100 members pings 15.
 */
const MAX_PINGS = 1536

/** Targets of each member at least, where there are so many. */
const MIN_PINGED = 4

/** How many others each of `members` pings, and is pinged by. */
export function pingsPerMember(members: number): number {
  return Math.min(members - 1, Math.max(MIN_PINGED, Math.floor(MAX_PINGS / members)))
}

/**
 * Which members each one pings. They form a ring, sorted by zone, host and name, and each pings others at even
 * distances around it. When neighbours die at once, each of them is pinged by a live member, unless fewer live than
 * one in `pingsPerMember` + 1. Pure; the order of `members` does not matter.
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

/**
 * `refused`: the host says that nobody listens. `answers`: a live process there says that it is `instance`. Silence,
 * an unknown name or another process show nothing: undefined.
 */
export function look(endpoint: string, instance: string): Promise<'refused' | 'answers' | undefined> {
  return ask(endpoint, instance, CONNECT_TIMEOUT_MS)
}

/** Whether a live process at `endpoint` says that it is `instance`. A frozen one does not. */
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
 * Calls `silent` when the socket had no event for its timeout, `ms` at first. Events that this process has not read
 * yet, because it was frozen itself, count.
 */
function onSilence(socket: Socket, ms: number, silent: () => void): void {
  let heard = 0
  for (const event of ['connect', 'data']) socket.on(event, () => heard++)
  socket.setTimeout(ms)
  socket.on('timeout', () => {
    const before = heard
    // In a turn of the event loop timers run before sockets, and immediates after them.
    setImmediate(() => {
      if (heard === before) silent()
    })
  })
}

export function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || (isIPv4(host) && host.startsWith('127.'))
}
