import type { Copy, Listing, PartitionReader, PastAnswer } from '../../processor/contract/query.ts'
import type { SearchQuestion, SearchSlice, SummaryQuestion, SummarySlice } from '../../processor/contract/search.ts'
import { Limiter } from '../../processor/runtime/limiter.ts'
import { ProblemError } from '../http/problem.ts'
import { inTime, LateError, MAX_QUEUED_MS } from './exchange.ts'
import { ANSWER_WITHIN_MS } from './monotonic-reads.ts'

/**
 * Slices of searches under way: they share one event loop, so more would only make each of them late. What others may have
 * under way at a processor.
 */
export const MAX_LOCAL_SEARCHES = 48
/** How long a slice may take once it has begun, ms, where no other process could give it; it works for about 250. */
export const PATIENCE_MS = 5_000

const PATIENCE = {
  ms: MAX_QUEUED_MS,
  over: () => ProblemError.overloaded(`searches wait for longer than ${MAX_QUEUED_MS} ms for their turn`),
}

/** The readers of the copies that this process itself holds: their searches take turns, and waiting for that is not lateness. */
export class LocalReaders {
  readonly #alone: boolean
  readonly #answerWithinMs: number
  readonly #limiter = new Limiter(MAX_LOCAL_SEARCHES, PATIENCE)
  readonly #readers = new WeakMap<PartitionReader, PartitionReader>()

  /** `alone`: nobody else could be asked, so who has no answer in time is told that this process has too much to do. */
  constructor({ alone }: { readonly alone: boolean }) {
    this.#alone = alone
    this.#answerWithinMs = alone ? PATIENCE_MS : ANSWER_WITHIN_MS
  }

  of(reader: PartitionReader): PartitionReader {
    let local = this.#readers.get(reader)
    if (local === undefined) {
      local = new LocalReader(reader, (slice) => this.#search(slice))
      this.#readers.set(reader, local)
    }
    return local
  }

  async #search<T>(slice: () => Promise<T>): Promise<T> {
    const leave = await this.#limiter.enter()
    const answer = slice()
    // One that is late keeps its place: it goes on working.
    answer.then(leave, leave)
    try {
      return await inTime(answer, this.#answerWithinMs, () => `no answer here within ${this.#answerWithinMs} ms`)
    } catch (error) {
      if (!this.#alone || !(error instanceof LateError)) throw error
      throw ProblemError.overloaded(`a search took longer than ${this.#answerWithinMs} ms`)
    }
  }
}

class LocalReader implements PartitionReader {
  readonly #reader: PartitionReader
  readonly #inTurn: <T>(slice: () => Promise<T>) => Promise<T>

  constructor(reader: PartitionReader, inTurn: <T>(slice: () => Promise<T>) => Promise<T>) {
    this.#reader = reader
    this.#inTurn = inTurn
  }

  getMany(...asked: Parameters<PartitionReader['getMany']>): ReturnType<PartitionReader['getMany']> {
    return this.#reader.getMany(...asked)
  }

  getEach(...asked: Parameters<PartitionReader['getEach']>): ReturnType<PartitionReader['getEach']> {
    return this.#reader.getEach(...asked)
  }

  list(...asked: Parameters<PartitionReader['list']>): Promise<Listing> {
    return this.#reader.list(...asked)
  }

  getPast(...asked: Parameters<PartitionReader['getPast']>): Promise<PastAnswer> {
    return this.#reader.getPast(...asked)
  }

  search(question: SearchQuestion): Promise<SearchSlice> {
    return this.#inTurn(() => this.#reader.search(question))
  }

  summarize(question: SummaryQuestion): Promise<SummarySlice> {
    return this.#inTurn(() => this.#reader.summarize(question))
  }

  copies(): Promise<Copy[]> {
    return this.#reader.copies()
  }
}
