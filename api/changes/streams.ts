import type { Logger } from 'pino'
import { Counter, Gauge, type Registry } from 'prom-client'
import { OffsetOutOfRangeError, UnavailableError } from '../../processor/contract/errors.ts'
import { partitionOf } from '../../processor/contract/partition.ts'
import { bufferOf } from '../../processor/contract/query.ts'
import type { ChangeFeed, Offset } from '../../processor/contract/record.ts'
import type { Clock } from '../../processor/runtime/pause.ts'
import { type Caller, maySee } from '../auth/caller.ts'
import type { StatusProjection } from '../devices/projection.ts'
import { ProblemError } from '../http/problem.ts'
import type { ChangesLimits } from '../limits.ts'
import type { Change } from './change.ts'
import { ChangelogFollower, type Subject, type Subscriber } from './changelog-follower.ts'
import { END_REASONS, type EndReason, type EventName, type EventSink, eventText, retryText } from './event.ts'
import { NOWHERE, Positions, planStart, type Start } from './resume.ts'
import { readSnapshot, type SnapshotReader } from './snapshot.ts'
import { StreamWriter } from './stream-writer.ts'

/** Bytes of buffered changes that a stream takes at once while it catches up. Then their events must leave. */
const READ_BYTES = 256 * 1024
/** A clock that is set forward ends a stream at most this much after its token, ms. */
const TOKEN_LOOK_MS = 5_000
/** The offset from which a partition is followed for a stream that still reads it by itself: none. */
const BY_ITSELF = Number.POSITIVE_INFINITY

export interface StreamOptions {
  readonly following: ChangelogFollower
  readonly subject: Subject
  readonly caller: Caller
  readonly positions: Positions
  readonly sink: EventSink
  readonly projection?: StatusProjection | undefined
  /** Whether a new stream starts with a snapshot. */
  readonly snapshot: boolean
  readonly reader: SnapshotReader
  readonly logger: Logger
  readonly told: (event: EventName, count: number) => void
  /** Called once when the stream is over. Undefined: the client went. */
  readonly ended: (reason: EndReason | undefined) => void
}

/**
 * One stream of changes. It first reads each partition by itself, at its client's pace, up to where this process
 * follows the changelog. From then on it is told of changes, and keeps within a bound the newest of each device that
 * the client has not taken.
 */
export class ChangesStream implements Subscriber {
  readonly subject: Subject
  readonly #options: StreamOptions
  readonly #following: ChangelogFollower
  readonly #sink: EventSink
  readonly #writer: StreamWriter
  readonly #stop = new AbortController()
  #cancelWatch = () => {}
  readonly #partitions: readonly number[]
  /** By partition: how far the stream read by itself. */
  readonly #next: Offset[]
  /** By partition: the first offset that it is told of. */
  readonly #toldFrom: Offset[]
  /** The client has everything before its position, so that position can be given to it. */
  #placed = false
  /** Epoch seconds at which the position was last the end of the changelog. */
  #atSeconds = 0
  /** The stream is told of changes in all partitions. */
  #isTold = false
  #lost = false

  constructor(options: StreamOptions) {
    const { following, subject, sink } = options
    const { partitions } = following.feed
    this.subject = subject
    this.#options = options
    this.#following = following
    this.#sink = sink
    const all = Array.from({ length: partitions }, (_, partition) => partition)
    this.#partitions = 'deviceId' in subject ? [partitionOf(subject.deviceId, partitions)] : all
    this.#next = all.map(() => 0)
    this.#toldFrom = all.map(() => BY_ITSELF)
    sink.onClose = () => this.#close(undefined)
    if (options.caller.expiresAt !== undefined) this.#watchToken(options.caller.expiresAt)
    this.#writer = new StreamWriter({
      following,
      sink,
      projection: options.projection,
      position: () => this.#position(),
      told: options.told,
      full: (reason) => this.end(reason),
    })
  }

  /** Resolves when the stream is told of all further changes, or is over. It never rejects. */
  async run(beginning: Start): Promise<void> {
    this.#following.add(this)
    let begin = beginning
    while (!this.#stop.signal.aborted) {
      this.#lost = false
      try {
        await this.#begin(begin)
        for (const partition of this.#partitions) await this.#catchUp(partition)
        if (this.#lost) throw outOfRange('what was followed is not in the changelog any more')
        this.#isTold = true
        return
      } catch (error) {
        if (this.#stop.signal.aborted) return
        if (!(error instanceof OffsetOutOfRangeError)) return this.#fail(error)
        begin = { anew: 'position-out-of-range' }
      }
    }
  }

  offer(change: Change, matched: boolean): void {
    if (change.offset < (this.#toldFrom[change.partition] as Offset)) return
    if (maySee(this.#options.caller, change.deviceId)) this.#writer.take(change, matched)
  }

  lose(partition: number): void {
    if (!this.#partitions.includes(partition)) return
    this.#lost = true
    // Before that, the check comes when the stream has caught up.
    if (this.#isTold) void this.run({ anew: 'position-out-of-range' })
  }

  /** The client learns the reason if it takes the event in time. */
  end(reason: EndReason): void {
    if (this.#stop.signal.aborted) return
    const { clock, limits } = this.#following
    this.#options.told('end', 1)
    const cancel = clock.after(limits.lastWordMs, () => this.#sink.destroy())
    this.#sink.onClose = cancel
    this.#close(reason)
    this.#sink.end(eventText('end', JSON.stringify({ reason })))
  }

  /** Uses the clock that checks tokens, which somebody may set. */
  #watchToken(expiresAt: number): void {
    const { clock } = this.#following
    const leftMs = Math.min(Math.max(0, expiresAt - clock.now()), TOKEN_LOOK_MS)
    this.#cancelWatch = clock.after(leftMs, () => {
      if (clock.now() >= expiresAt) this.end('token-expired')
      else if (!this.#options.caller.isTrusted()) this.end('token-withdrawn')
      else this.#watchToken(expiresAt)
    })
  }

  #fail(error: unknown): void {
    const unavailable = error instanceof UnavailableError
    if (!unavailable) this.#options.logger.error({ err: error }, 'a stream of changes met an unexpected error')
    this.end(unavailable ? 'unavailable' : 'error')
  }

  #close(reason: EndReason | undefined): void {
    if (this.#stop.signal.aborted) return
    this.#stop.abort()
    this.#following.remove(this)
    this.#cancelWatch()
    this.#writer.close()
    this.#options.ended(reason)
  }

  async #begin(begin: Start): Promise<void> {
    this.#isTold = false
    for (const partition of this.#partitions) this.#toldFrom[partition] = BY_ITSELF
    if ('at' in begin) {
      for (const partition of this.#partitions) this.#next[partition] = begin.at.offsets[partition] as Offset
      this.#atSeconds = begin.at.atSeconds
      this.#placed = true
      this.#writer.resume()
      return
    }
    const { snapshot } = this.#options
    for (const partition of this.#partitions) this.#next[partition] = this.#following.end(partition)
    this.#atSeconds = this.#nowSeconds()
    this.#placed = !snapshot
    this.#writer.reset()
    // Nothing can be resumed before the snapshot is whole.
    this.#writer.tell('reset', { reason: begin.anew, snapshot }, snapshot ? NOWHERE : this.#position())
    if (snapshot) await this.#tellSnapshot()
  }

  async #tellSnapshot(): Promise<void> {
    const { reader, caller } = this.#options
    const following = this.#following
    let count = 0
    for (const partition of this.#partitions) {
      const pages = readSnapshot({ following, reader, caller, subject: this.subject, partition })
      let least = Number.POSITIVE_INFINITY
      for await (const { devices, reached } of pages) {
        least = Math.min(least, reached)
        await this.#writer.enter(devices)
        count += devices.length
        if (this.#stop.signal.aborted) return
      }
      if (least < Number.POSITIVE_INFINITY) this.#next[partition] = this.#known(partition, least)
    }
    this.#placed = true
    this.#writer.tell('snapshot-end', { count }, this.#position())
  }

  /**
   * An owner's answer includes a commit before any reader of the changelog sees it. A position beyond what readers see
   * would look like one of another changelog, so the end stands in for it and some changes come twice.
   */
  #known(partition: number, reached: Offset): Offset {
    return Math.min(reached, this.#following.end(partition))
  }

  /** Reads a partition from where the stream is to where following is. From then on the stream is told of changes. */
  async #catchUp(partition: number): Promise<void> {
    const following = this.#following
    // Another process may be ahead of this one. No process ever gave out a position past the end.
    if ((this.#next[partition] as Offset) > following.end(partition)) await this.#checkAhead(partition)
    for (;;) {
      await this.#writer.room()
      if (this.#stop.signal.aborted) return
      const recent = following.recent(partition)
      const read = recent.read(this.#next[partition] as Offset, READ_BYTES)
      if (read === undefined) {
        await following.catchUps.run(() => this.#readOlder(partition))
        continue
      }
      for (const change of read.changes) {
        const turn = this.#take(change)
        if (turn !== undefined) await turn
        if (this.#stop.signal.aborted) return
      }
      this.#next[partition] = read.next
      if (read.next < recent.next) continue
      this.#toldFrom[partition] = read.next
      return
    }
  }

  async #checkAhead(partition: number): Promise<void> {
    const { end } = await this.#following.feed.bounds(partition)
    const next = this.#next[partition] as Offset
    if (next > end) throw outOfRange(`${next} is past the end ${end} of partition ${partition} of the changelog`)
  }

  /** Reads what following no longer keeps, until that is done or the client must take some first. */
  async #readOlder(partition: number): Promise<void> {
    const following = this.#following
    if ('deviceId' in this.subject) await this.#readDevice(partition, this.subject.deviceId)
    const { signal } = this.#stop
    const reached = () => (this.#next[partition] as Offset) >= following.recent(partition).start
    if (signal.aborted || reached()) return
    for await (const batch of following.feed.follow(partition, this.#next[partition] as Offset, signal)) {
      for (const record of batch.records) {
        const turn = this.#take(following.change(partition, record))
        if (turn !== undefined) await turn
        if (signal.aborted) return
      }
      this.#next[partition] = batch.next
      if (reached() || !this.#writer.hasRoom) return
    }
  }

  /** One device's newest status stands for all of its changes up to there. */
  async #readDevice(partition: number, deviceId: string): Promise<void> {
    try {
      const { status, freshness } = await this.#options.reader.get(deviceId)
      const offset = freshness.changelog - 1
      if (offset < (this.#next[partition] as Offset)) return
      const record = { offset, key: deviceId, value: status === undefined ? null : bufferOf(status), timestamp: 0 }
      void this.#take(this.#following.change(partition, record))
      this.#next[partition] = this.#known(partition, freshness.changelog)
    } catch (error) {
      // Then the stream reads the device's changes one by one.
      if (!(error instanceof UnavailableError)) throw error
    }
  }

  /** Takes a change that the stream read by itself. Returns a promise to await when the turn is over. */
  #take(change: Change): Promise<void> | undefined {
    const { subject } = this
    if ('deviceId' in subject ? change.deviceId === subject.deviceId : maySee(this.#options.caller, change.deviceId)) {
      const matched = change.matches('deviceId' in subject ? undefined : subject.matcher)
      this.#writer.take(change, matched)
    }
    return this.#following.spend(change.forget())
  }

  #position(): string | undefined {
    if (!this.#placed) return undefined
    const following = this.#following
    if (this.#isTold) this.#atSeconds = this.#nowSeconds()
    const offsets: (Offset | undefined)[] = this.#next.map(() => undefined)
    for (const partition of this.#partitions) {
      const toldFrom = this.#toldFrom[partition] as Offset
      const read = this.#next[partition] as Offset
      offsets[partition] = toldFrom === BY_ITSELF ? read : Math.max(toldFrom, following.recent(partition).next)
    }
    this.#writer.pending.lower(offsets)
    return this.#options.positions.encode({ offsets, atSeconds: this.#atSeconds })
  }

  #nowSeconds(): number {
    return Math.floor(this.#following.clock.now() / 1000)
  }
}

function outOfRange(message: string): OffsetOutOfRangeError {
  return new OffsetOutOfRangeError(message)
}

const LEFT = 'client'

export interface ChangeStreamsOptions {
  readonly feed: ChangeFeed
  readonly reader: SnapshotReader
  readonly clock: Clock
  /** A number from 0 to 1. */
  readonly random: () => number
  readonly limits: ChangesLimits
  readonly registry: Registry
  readonly logger: Logger
}

export interface StreamRequest {
  readonly subject: Subject
  readonly caller: Caller
  /** The fields that the client asked for. Undefined: all. */
  readonly projection?: StatusProjection | undefined
  readonly snapshot: boolean
  readonly lastEventId: string | undefined
}

/** The streams of this process. The changelog is followed while there are any. */
export class ChangeStreams {
  readonly #options: ChangeStreamsOptions
  readonly #streams = new Set<ChangesStream>()
  readonly #events: Counter<'event'>
  readonly #ends: Counter<'reason'>
  #following: Promise<ChangelogFollower> | undefined
  /** Streams, including those that are being opened. */
  #count = 0
  #closing = false

  constructor(options: ChangeStreamsOptions) {
    this.#options = options
    const registers = [options.registry]
    this.#events = new Counter({
      name: 'tidemark_changes_events_total',
      help: 'Events written to streams of changes.',
      labelNames: ['event'],
      registers,
    })
    this.#ends = new Counter({
      name: 'tidemark_changes_streams_ended_total',
      help: 'Streams of changes that are over, by reason.',
      labelNames: ['reason'],
      registers,
    })
    // Prometheus sees no increase in a series that begins with 1.
    for (const reason of [...END_REASONS, LEFT]) this.#ends.inc({ reason }, 0)
    const open = (): number => this.#count
    const streams = new Gauge({
      name: 'tidemark_changes_streams',
      help: 'Streams of changes that are open.',
      registers: [],
      collect() {
        this.set(open())
      },
    })
    options.registry.registerMetric(streams)
  }

  /**
   * Opens a stream into the sink that `connect` returns once nothing can be refused any more; undefined: the client has
   * gone. Rejects with ProblemError `overloaded` at the limit or while the process stops, and with UnavailableError
   * without a changelog.
   */
  async open(request: StreamRequest, connect: () => EventSink | undefined): Promise<void> {
    const { limits, feed, clock, random } = this.#options
    if (this.#closing) throw ProblemError.overloaded(SHUTTING_DOWN)
    if (this.#count >= limits.maxStreams) throw ProblemError.overloaded(`${limits.maxStreams} streams are open here`)
    this.#count++
    const opening = (this.#following ??= ChangelogFollower.open(this.#options))
    let following: ChangelogFollower
    try {
      following = await opening
    } catch (error) {
      // The next stream tries again.
      if (this.#following === opening) this.#following = undefined
      this.#leave()
      throw error
    }
    if (this.#closing) {
      this.#leave()
      throw ProblemError.overloaded(SHUTTING_DOWN)
    }
    const sink = connect()
    if (sink === undefined) return this.#leave()
    const { subject, caller, lastEventId } = request
    const positions = new Positions(streamName(feed, subject, caller), feed.partitions)
    const stream = new ChangesStream({
      ...request,
      following,
      positions,
      sink,
      reader: this.#options.reader,
      logger: this.#options.logger,
      told: (event) => this.#events.inc({ event }),
      ended: (reason) => this.#ended(stream, reason),
    })
    this.#streams.add(stream)
    sink.write(retryText(Math.round(limits.retryMs * (1 + random()))))
    const maxBehind = 'deviceId' in subject ? undefined : limits.maxBehind
    const ends = Array.from({ length: feed.partitions }, (_, partition) => following.end(partition))
    const { deleteRetentionMs } = feed
    const now = clock.now()
    void stream.run(planStart({ lastEventId, positions, ends, maxBehind, deleteRetentionMs, now }))
  }

  /** Ends all streams, so that their clients connect elsewhere, and admits no more. */
  async close(): Promise<void> {
    this.#closing = true
    for (const stream of this.#streams) stream.end('shutdown')
    await this.#stop()
  }

  #ended(stream: ChangesStream, reason: EndReason | undefined): void {
    this.#streams.delete(stream)
    this.#ends.inc({ reason: reason ?? LEFT })
    if (reason !== undefined && reason !== 'shutdown')
      this.#options.logger.info({ reason }, 'a stream of changes ended')
    this.#leave()
  }

  #leave(): void {
    this.#count--
    if (this.#count === 0) void this.#stop()
  }

  /** Never rejects: a follower that could not start has nothing to stop. */
  async #stop(): Promise<void> {
    const following = this.#following
    this.#following = undefined
    const begun = await following?.catch(() => undefined)
    await begun?.[Symbol.asyncDispose]()
  }
}

const SHUTTING_DOWN = 'this process is shutting down'

/** Equal for streams that may resume one another: same log, same devices, same visible prefixes. */
function streamName({ identity }: ChangeFeed, subject: Subject, { prefixes }: Caller): string {
  return JSON.stringify([identity, 'deviceId' in subject ? [subject.deviceId] : subject.text, prefixes ?? null])
}
