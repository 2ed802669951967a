import type { Copy, Listing, PartitionReader, PastAnswer } from '../../processor/contract/query.ts'
import type { SearchQuestion, SearchSlice, SummaryQuestion, SummarySlice } from '../../processor/contract/search.ts'
import { Limiter } from '../../processor/runtime/limiter.ts'
import { ProblemError } from '../http/problem.ts'
import { inTime, LateError, MAX_QUEUED_MS } from './exchange.ts'
import { ANSWER_WITHIN_MS } from './monotonic-reads.ts'

/**
 * Slices of searches under way. They share one event loop, so more of them would all be late. Another process may have
 * as many under way at a processor.
 */
export const MAX_LOCAL_SEARCHES = 48
/** Time for a slice once it began, ms, where no other process could give it. It works for about 250 ms. */
export const PATIENCE_MS = 5_000

const PATIENCE = {
  ms: MAX_QUEUED_MS,
  over: () => ProblemError.overloaded(`searches wait for longer than ${MAX_QUEUED_MS} ms for their turn`),
}

/** Reads the copies in this process. Their searches take turns, and waiting for a turn does not count as lateness. */
export class LocalReaders {
  readonly #alone: boolean
  readonly #answerWithinMs: number
  readonly #limiter = new Limiter(MAX_LOCAL_SEARCHES, PATIENCE)
  readonly #readers = new WeakMap<PartitionReader, PartitionReader>()

  /** `alone`: no other process could be asked, so a late answer means that this process is overloaded. */
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
    // A late search goes on working, so it keeps its place.
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
