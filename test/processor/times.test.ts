import { expect, it } from 'vitest'
import { ANSWER_WITHIN_MS as EXCHANGE_MS, MAX_ANSWER_MS, MAX_QUEUED_MS } from '../../api/reader/exchange.ts'
import { ANSWER_WITHIN_MS as COPY_MS } from '../../api/reader/monotonic-reads.ts'
import { HOLD_SHARE } from '../../api/reader/reader.ts'
import { IDLE_MS } from '../../api/reader/remote.ts'
import { MAX_HOLD_MS } from '../../processor/contract/query-wire.ts'
import { TRANSACTION_TIMEOUT_MS } from '../../processor/log/kafka/claim/claim.ts'
import { CLAIM_TIMEOUT_MS } from '../../processor/log/kafka/claim/claim-context.ts'
import { HEARTBEAT_MS, LATE_MS, LEASE_MS } from '../../processor/log/kafka/group/member.ts'
import { PING_INTERVAL_MS, SILENCE_MS } from '../../processor/log/kafka/group/peers.ts'
import { KEEP_ALIVE_MS } from '../../processor/runtime/health-server.ts'
import { KEPT_MS, PATIENCE_MS as SCAN_MS } from '../../processor/search/scan-threads.ts'
import { SLICE_MS } from '../../processor/search/searcher.ts'

/** Times of files that do not see each other, the shorter one first, and what goes wrong in another order. */
const ORDERS: readonly (readonly [shorter: string, number, longer: string, number, why: string])[] = [
  ['four heartbeats', 4 * HEARTBEAT_MS, 'a lease', LEASE_MS, 'one late answer makes a healthy member doubt itself'],
  [
    'a lease',
    LEASE_MS,
    'the silence of a peer',
    SILENCE_MS,
    'a frozen owner goes on when its peers have moved its partitions',
  ],
  ['three pings', 3 * PING_INTERVAL_MS, 'the silence of a peer', SILENCE_MS, 'a lost ping has a healthy peer leave'],
  [
    'the silence of a peer',
    SILENCE_MS,
    'a late join',
    LATE_MS,
    'members are called late while they wait for a dead one to go',
  ],
  [
    'a commit is tried',
    CLAIM_TIMEOUT_MS,
    'a transaction',
    TRANSACTION_TIMEOUT_MS,
    'a commit is aborted while it is tried',
  ],
  [
    'a slice of a search',
    SLICE_MS,
    'a processor has for an answer',
    EXCHANGE_MS,
    'a healthy processor is called silent',
  ],
  [
    'a scan is waited for',
    SCAN_MS,
    'a processor has for an answer',
    EXCHANGE_MS,
    'a processor that scans is called silent',
  ],
  [
    'a question is held',
    COPY_MS * HOLD_SHARE,
    'a processor has for an answer',
    EXCHANGE_MS,
    'one that holds it is silent',
  ],
  ['a question is held', COPY_MS * HOLD_SHARE, 'it may be held', MAX_HOLD_MS, 'a processor refuses the question'],
  ['a processor has for an answer', EXCHANGE_MS, 'a copy has', COPY_MS, 'the reader does not hear why a copy failed'],
  ['a copy has for an answer', COPY_MS, 'a request is given up', MAX_ANSWER_MS, 'nobody who is patient gets an answer'],
  [
    'a request waits for a connection',
    MAX_QUEUED_MS,
    'a scan is kept',
    KEPT_MS,
    'a search scans anew, again and again',
  ],
  [
    'an idle connection of a reader',
    IDLE_MS,
    'one of a processor',
    KEEP_ALIVE_MS,
    'a request meets a closing connection',
  ],
]

it.each(ORDERS)('%s (%i ms) is shorter than %s (%i ms): else %s', (_shorter, less, _longer, more) => {
  expect(less).toBeLessThan(more)
})
