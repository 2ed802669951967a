import type { Logger } from 'pino'
import { Counter, Gauge, type Registry } from 'prom-client'
import type { ChangeFeed } from '../../processor/contract/changes.ts'
import type { Clock } from '../../processor/runtime/clock.ts'
import type { Caller } from '../auth/caller.ts'
import type { StatusProjection } from '../devices/projection.ts'
import { ProblemError } from '../http/problem.ts'
import type { ChangesLimits } from '../limits-part.ts'
import { planBeginning } from './beginning.ts'
import { END_REASONS, type EndReason, retryText } from './event.ts'
import { Following, type Subject } from './following.ts'
import { Positions } from './resume.ts'
import type { Sink } from './sink.ts'
import type { SnapshotReader } from './snapshot.ts'
import { ChangesStream } from './stream.ts'

/** The reason of a stream that its client ended. */
const LEFT = 'client'

export interface ChangeStreamsOptions {
  readonly feed: ChangeFeed
  readonly reader: SnapshotReader
  readonly clock: Clock
  /** From 0 to 1. */
  readonly random: () => number
  readonly limits: ChangesLimits
  readonly registry: Registry
  readonly logger: Logger
}

export interface StreamRequest {
  readonly subject: Subject
  readonly caller: Caller
  /** What the client is to have of a status; undefined: all of it. */
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
  #following: Promise<Following> | undefined
  /** Streams, and those to be. */
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
    // Prometheus sees no increase in a series that begins with one.
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
   * Opens a stream into what `connect` gives, which is asked for when nothing can be refused any more; undefined: the
   * client has gone. Rejects with ProblemError `overloaded` at the limit and when the process stops, with UnavailableError
   * without a changelog.
   */
  async open(request: StreamRequest, connect: () => Sink | undefined): Promise<void> {
    const { limits, feed, clock, random } = this.#options
    if (this.#closing) throw ProblemError.overloaded(SHUTTING_DOWN)
    if (this.#count >= limits.maxStreams) throw ProblemError.overloaded(`${limits.maxStreams} streams are open here`)
    this.#count++
    const opening = (this.#following ??= Following.open(this.#options))
    let following: Following
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
    void stream.run(planBeginning({ lastEventId, positions, ends, maxBehind, deleteRetentionMs, now }))
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

  /** Never rejects: following that could not begin has nothing to stop. */
  async #stop(): Promise<void> {
    const following = this.#following
    this.#following = undefined
    const begun = await following?.catch(() => undefined)
    await begun?.[Symbol.asyncDispose]()
  }
}

const SHUTTING_DOWN = 'this process is shutting down'

/** Equal where one stream may go on where another was: the same log, the same devices, and no others to be seen. */
function streamName({ identity }: ChangeFeed, subject: Subject, { prefixes }: Caller): string {
  return JSON.stringify([identity, 'deviceId' in subject ? [subject.deviceId] : subject.text, prefixes ?? null])
}
