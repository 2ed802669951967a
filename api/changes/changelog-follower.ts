import { setImmediate } from 'node:timers/promises'
import type { Logger } from 'pino'
import { OffsetOutOfRangeError, reasonOf, UnavailableError } from '../../processor/contract/errors.ts'
import type { ChangeFeed, LogRecord, Offset } from '../../processor/contract/record.ts'
import { Limiter } from '../../processor/runtime/limiter.ts'
import type { Clock } from '../../processor/runtime/pause.ts'
import type { Matcher } from '../../processor/search/language/match.ts'
import type { ChangesLimits } from '../limits.ts'
import { Change, DeviceNumbers } from './change.ts'

/** The newest changes of one partition, bounded in number and bytes. The oldest go first. */
export class RecentChanges {
  readonly #maxRecords: number
  readonly #maxBytes: number
  #changes: Change[] = []
  /** Entries of `#changes` before this index are gone. */
  #head = 0
  #bytes = 0
  /** All changes from this offset on are at hand. */
  start: Offset
  next: Offset

  constructor(from: Offset, maxRecords: number, maxBytes: number) {
    this.start = from
    this.next = from
    this.#maxRecords = maxRecords
    this.#maxBytes = maxBytes
  }

  push(change: Change): void {
    this.#changes.push(change)
    this.#bytes += change.bytes
    this.next = change.offset + 1
    while (this.#changes.length - this.#head > this.#maxRecords || this.#bytes > this.#maxBytes) this.#drop()
    if (this.#head > this.#maxRecords) {
      this.#changes = this.#changes.slice(this.#head)
      this.#head = 0
    }
  }

  /** Moves past offsets that compaction removed or that hold control records. */
  pass(next: Offset): void {
    this.next = Math.max(this.next, next)
  }

  /** Returns changes from `from` on, up to about `maxBytes`; undefined when some of them are gone. */
  read(from: Offset, maxBytes: number): { changes: Change[]; next: Offset } | undefined {
    if (from < this.start) return undefined
    const changes: Change[] = []
    let bytes = 0
    for (let i = this.#find(from); i < this.#changes.length; i++) {
      const change = this.#changes[i] as Change
      if (bytes >= maxBytes) return { changes, next: change.offset }
      changes.push(change)
      bytes += change.bytes
    }
    return { changes, next: Math.max(from, this.next) }
  }

  #drop(): void {
    const dropped = this.#changes[this.#head] as Change
    this.#bytes -= dropped.bytes
    this.start = dropped.offset + 1
    // The text is large. Its slot in the array is not.
    this.#changes[this.#head++] = undefined as unknown as Change
  }

  /** Index of the first change with an offset of at least `from`. */
  #find(from: Offset): number {
    let low = this.#head
    let high = this.#changes.length
    while (low < high) {
      const middle = (low + high) >> 1
      if ((this.#changes[middle] as Change).offset < from) low = middle + 1
      else high = middle
    }
    return low
  }
}

/** Records of a partition that are read again when following begins, for streams that come from another process. */
const HEAD_START = 2_000
/** Pause before the changelog is asked again after a failure, ms. */
const RETRY_MS = 500
/** Matches, or events taken, before the event loop gets its turn: about 5 ms. */
const SLICE = 20_000
/** Bytes of JSON that take as long as one match. */
const BYTES_OF_ONE = 40

/** A stream follows one device, or the devices that satisfy a query. */
export type Subject =
  | { readonly deviceId: string }
  | {
      /** Streams with the same text share each match. */
      readonly text: string
      /** Undefined: every status matches. */
      readonly matcher: Matcher | undefined
    }

/** Is told of changes within a turn of the event loop, and only notes them. */
export interface Subscriber {
  readonly subject: Subject
  /** `matched`: the device exists and satisfies the subject. */
  offer(change: Change, matched: boolean): void
  /** The changelog of this partition no longer reaches back to where it was followed, so changes are missing. */
  lose(partition: number): void
}

interface Group {
  readonly matcher: Matcher | undefined
  readonly followers: Set<Subscriber>
}

export interface ChangelogFollowerOptions {
  readonly feed: ChangeFeed
  readonly limits: ChangesLimits
  readonly logger: Logger
  readonly clock: Clock
}

/** Follows the changelog for all streams of a process: one reader per partition, and the changes that it read last. */
export class ChangelogFollower {
  readonly feed: ChangeFeed
  readonly limits: ChangesLimits
  readonly clock: Clock
  readonly numbers: DeviceNumbers
  /** Bounds the reads of older changes and of snapshots that streams make themselves. */
  readonly catchUps: Limiter
  readonly snapshots: Limiter
  /** Bytes of the statuses that wait in all streams. */
  waitingBytes = 0
  readonly #logger: Logger
  readonly #recent: RecentChanges[]
  /** Ends of the partitions when following began. */
  readonly #ends: readonly Offset[]
  readonly #byDevice = new Map<string, Set<Subscriber>>()
  readonly #groups = new Map<string, Group>()
  readonly #stop = new AbortController()
  readonly #ended: Promise<unknown>
  #work = 0

  /** Rejects with UnavailableError while the changelog cannot be read. */
  static async open(options: ChangelogFollowerOptions): Promise<ChangelogFollower> {
    const { feed } = options
    try {
      const partitions = Array.from({ length: feed.partitions }, (_, partition) => feed.bounds(partition))
      return new ChangelogFollower(options, await Promise.all(partitions))
    } catch (error) {
      throw new UnavailableError('LOG_UNAVAILABLE', `the changelog cannot be read now: ${reasonOf(error)}`, 1, error)
    }
  }

  private constructor(
    options: ChangelogFollowerOptions,
    bounds: readonly { readonly start: Offset; readonly end: Offset }[],
  ) {
    const { feed, limits, logger, clock } = options
    this.feed = feed
    this.limits = limits
    this.clock = clock
    this.#logger = logger
    this.numbers = new DeviceNumbers(limits.maxDevices)
    this.catchUps = new Limiter(limits.maxCatchUps)
    this.snapshots = new Limiter(limits.maxSnapshots)
    this.#ends = bounds.map(({ end }) => end)
    const headStart = Math.min(HEAD_START, limits.recentRecords)
    this.#recent = bounds.map(({ start, end }) => this.#fresh(Math.max(start, end - headStart)))
    this.#ended = Promise.all(bounds.map((_, partition) => this.#follow(partition)))
  }

  /** Returns the last known end of a partition, which may be a little behind. */
  end(partition: number): Offset {
    return Math.max(this.#ends[partition] as Offset, this.recent(partition).next)
  }

  recent(partition: number): RecentChanges {
    return this.#recent[partition] as RecentChanges
  }

  change(partition: number, record: LogRecord): Change {
    return new Change(partition, record, this.numbers)
  }

  /** Counts a stream's own work in bytes of JSON. Returns a promise to await when the turn is over. */
  spend(bytes: number): Promise<void> | undefined {
    this.#work += 1 + bytes / BYTES_OF_ONE
    return this.#rest()
  }

  add(follower: Subscriber): void {
    this.#followers(follower.subject).add(follower)
  }

  remove(follower: Subscriber): void {
    const { subject } = follower
    const followers = this.#followers(subject)
    followers.delete(follower)
    if (followers.size > 0) return
    if ('deviceId' in subject) this.#byDevice.delete(subject.deviceId)
    else this.#groups.delete(subject.text)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort()
    await this.#ended
  }

  #followers(subject: Subject): Set<Subscriber> {
    if ('deviceId' in subject) {
      let followers = this.#byDevice.get(subject.deviceId)
      if (followers === undefined) this.#byDevice.set(subject.deviceId, (followers = new Set()))
      return followers
    }
    let group = this.#groups.get(subject.text)
    if (group === undefined) {
      group = { matcher: subject.matcher, followers: new Set() }
      this.#groups.set(subject.text, group)
    }
    return group.followers
  }

  #fresh(from: Offset): RecentChanges {
    const { recentRecords, recentBytes } = this.limits
    return new RecentChanges(from, recentRecords, recentBytes / this.feed.partitions)
  }

  async #follow(partition: number): Promise<void> {
    const { signal } = this.#stop
    let failing = false
    let lost = false
    while (!signal.aborted) {
      try {
        if (lost) await this.#restart(partition)
        lost = false
        for await (const batch of this.feed.follow(partition, this.recent(partition).next, signal)) {
          if (failing) this.#logger.info({ partition }, 'the changelog can be followed again')
          failing = false
          for (const record of batch.records) {
            this.#deliver(this.change(partition, record))
            const turn = this.#rest()
            if (turn !== undefined) await turn
          }
          this.recent(partition).pass(batch.next)
        }
      } catch (error) {
        if (signal.aborted) return
        if (!failing) this.#logger.warn({ partition, err: error }, 'the changelog cannot be followed; trying again')
        failing = true
        lost ||= error instanceof OffsetOutOfRangeError
        await this.#pause(signal)
      }
    }
  }

  #rest(): Promise<void> | undefined {
    if (this.#work < SLICE) return undefined
    this.#work = 0
    return setImmediate()
  }

  #deliver(change: Change): void {
    this.recent(change.partition).push(change)
    this.#work += 1 + this.#groups.size
    const watching = this.#byDevice.get(change.deviceId)
    if (watching !== undefined) {
      for (const follower of watching) follower.offer(change, change.text !== undefined)
      this.#work += watching.size
    }
    for (const { matcher, followers } of this.#groups.values()) {
      const matched = change.matches(matcher)
      for (const follower of followers) follower.offer(change, matched)
      this.#work += followers.size
    }
    this.#work += change.forget() / BYTES_OF_ONE
  }

  /** Begins anew after the log was replaced or lost records: the changes between are unknown. */
  async #restart(partition: number): Promise<void> {
    const { end } = await this.feed.bounds(partition)
    this.#recent[partition] = this.#fresh(end)
    for (const followers of [...this.#byDevice.values(), ...Array.from(this.#groups.values(), (g) => g.followers)]) {
      for (const follower of followers) follower.lose(partition)
    }
  }

  #pause(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const end = (): void => {
        cancel()
        signal.removeEventListener('abort', end)
        resolve()
      }
      const cancel = this.clock.after(RETRY_MS, end)
      signal.addEventListener('abort', end)
    })
  }
}
