import type { FastifyReply } from 'fastify'
import { partitionOf } from '../../processor/contract/partition.ts'
import type { LetterReader, LogRecord } from '../../processor/contract/record.ts'
import type { Limiter } from '../../processor/runtime/limiter.ts'
import { TextTurns } from '../../processor/runtime/turns.ts'
import type { Api } from '../app.ts'
import { type Caller, callerOf, maySee, type Scope } from '../auth/caller.ts'
import { JSON_TYPE, nextPage } from '../http/answer-text.ts'
import type { UnsentAnswers } from '../http/connections.ts'
import { ProblemError } from '../http/problem.ts'
import type { Limits } from '../limits.ts'
import { deviceOf, LetterCursors, type LetterFilters, MAX_FOUND_LENGTH, readLetters, type Unshown } from './reading.ts'
import { DEFAULT_LIMIT, LIST_LETTERS } from './schemas.ts'

export interface DeadLetterRoutes {
  readonly letters: LetterReader
  readonly reads: Limiter
  readonly unsent: UnsentAnswers
  readonly limits: Limits
}

/** Dead letters show what devices sent, and `ops:read` alone, as metrics need it, must not reveal that. */
const READS_LETTERS: { readonly scope: readonly Scope[] } = { scope: ['ops:read', 'devices:read'] }

export function deadLetterRoutes(api: Api, { letters, reads, unsent, limits }: DeadLetterRoutes): void {
  const source = { reader: letters, turns: new TextTurns() }
  const budget = { records: limits.maxLettersExamined, bytes: limits.maxLetterBytesExamined }

  api.get('/v1/dead-letters', { schema: LIST_LETTERS, config: READS_LETTERS }, async (request, reply) => {
    const { limit = DEFAULT_LIMIT, cursor, reason, deviceId, partition } = request.query
    const caller = callerOf(request)
    if (deviceId !== undefined && !maySee(caller, deviceId)) throw ProblemError.otherDevice(deviceId)
    if (partition !== undefined && partition >= letters.partitions) {
      throw ProblemError.invalid([{ field: 'partition', message: `must be < ${letters.partitions}` }])
    }
    const filters = { reason, deviceId, partition }
    const cursors = new LetterCursors(letters.identity, letters.partitions, filters)
    const from = unshownOf(cursor, cursors)
    unsent.admit()
    using ending = endOf(reply, limits.letterMs)
    const home = deviceId === undefined ? undefined : partitionOf(deviceId, letters.partitions)
    const question = { partition: partition ?? home, from, limit, matches: matcherOf(filters, caller) }
    const page = await reads.run(() => readLetters(source, question, budget, ending.signal))
    const members = [`"items":[${page.letters.map(({ text }) => text).join(',')}]`]
    if (page.next !== undefined) {
      const nextCursor = cursors.encode(page.next)
      reply.header('link', nextPage(request, nextCursor))
      members.push(`"nextCursor":"${nextCursor}"`)
    }
    if (!page.complete) members.push(`"complete":false,"reason":${JSON.stringify(cutShort(limits))}`)
    const text = `{${members.join(',')}}`
    unsent.hold(text.length, reply.raw)
    reply.header('content-type', JSON_TYPE)
    return text
  })
}

function unshownOf(cursor: string | undefined, cursors: LetterCursors): Unshown | undefined {
  if (cursor === undefined) return undefined
  const unshown = cursors.decode(cursor)
  if (unshown !== undefined) return unshown
  const message = 'is not a cursor that this API gave for this reason, deviceId and partition'
  throw ProblemError.invalid([{ field: 'cursor', message }])
}

/** A caller who may see only some devices sees no dead letter without a device. */
function matcherOf({ reason, deviceId }: LetterFilters, caller: Caller): (record: LogRecord) => boolean {
  return (record) => {
    if (reason !== undefined && record.headers?.reason !== reason) return false
    if (deviceId === undefined && caller.prefixes === undefined) return true
    const told = deviceOf(record)
    return told !== undefined && (deviceId === undefined ? maySee(caller, told) : told === deviceId)
  }
}

/** Aborts after `ms`, or when the client has gone. */
function endOf({ raw }: FastifyReply, ms: number): Disposable & { readonly signal: AbortSignal } {
  const ending = new AbortController()
  const leave = (): void => ending.abort(new Error('the client has left'))
  const timer = setTimeout(() => ending.abort(new Error(`it has not answered within ${ms} ms`)), ms)
  raw.once('close', leave)
  return {
    signal: ending.signal,
    [Symbol.dispose]() {
      clearTimeout(timer)
      raw.off('close', leave)
    },
  }
}

function cutShort({ letterMs, maxLettersExamined, maxLetterBytesExamined }: Limits): string {
  const most = `${letterMs} ms, ${maxLettersExamined} letters and ${maxLetterBytesExamined} bytes of them`
  return `not all that had to be examined was: an answer takes up to ${most}, and ${MAX_FOUND_LENGTH} characters of those found`
}
