import { expect, test } from 'vitest'
import { ConfigurationError, RetryableError } from '../../../../../processor/contract/errors.ts'
import { errorOf } from '../../../../../processor/log/kafka/protocol/broker.ts'
import {
  asTidemark,
  isFencing,
  isNameless,
  isTransient,
  typeOf,
} from '../../../../../processor/log/kafka/protocol/errors.ts'

/** One that no version of Kafka has. */
const NEVER = 32_000

type Judgement = 'transient' | 'fencing' | 'configuration' | 'nameless'

/** Kafka's error codes, and what follows from them; from all others, that what was asked for ends, and may be tried again. */
const JUDGED: readonly [code: number, type: string, Judgement][] = [
  [-1, 'UNKNOWN', 'nameless'],
  [3, 'UNKNOWN_TOPIC_OR_PARTITION', 'transient'],
  [5, 'LEADER_NOT_AVAILABLE', 'transient'],
  [6, 'NOT_LEADER_FOR_PARTITION', 'transient'],
  [7, 'REQUEST_TIMED_OUT', 'transient'],
  [8, 'BROKER_NOT_AVAILABLE', 'transient'],
  [9, 'REPLICA_NOT_AVAILABLE', 'transient'],
  [13, 'NETWORK_EXCEPTION', 'transient'],
  [14, 'GROUP_LOAD_IN_PROGRESS', 'transient'],
  [15, 'GROUP_COORDINATOR_NOT_AVAILABLE', 'transient'],
  [16, 'NOT_COORDINATOR_FOR_GROUP', 'transient'],
  [19, 'NOT_ENOUGH_REPLICAS', 'transient'],
  [20, 'NOT_ENOUGH_REPLICAS_AFTER_APPEND', 'transient'],
  [29, 'TOPIC_AUTHORIZATION_FAILED', 'configuration'],
  [30, 'GROUP_AUTHORIZATION_FAILED', 'configuration'],
  [31, 'CLUSTER_AUTHORIZATION_FAILED', 'configuration'],
  [41, 'NOT_CONTROLLER', 'transient'],
  [47, 'INVALID_PRODUCER_EPOCH', 'fencing'],
  [49, 'INVALID_PRODUCER_ID_MAPPING', 'fencing'],
  [51, 'CONCURRENT_TRANSACTIONS', 'transient'],
  [53, 'TRANSACTIONAL_ID_AUTHORIZATION_FAILED', 'configuration'],
  [56, 'KAFKA_STORAGE_ERROR', 'transient'],
  [58, 'SASL_AUTHENTICATION_FAILED', 'configuration'],
  [65, 'DELEGATION_TOKEN_AUTHORIZATION_FAILED', 'configuration'],
  [74, 'FENCED_LEADER_EPOCH', 'transient'],
  [75, 'UNKNOWN_LEADER_EPOCH', 'transient'],
  [78, 'OFFSET_NOT_AVAILABLE', 'transient'],
  [88, 'UNSTABLE_OFFSET_COMMIT', 'transient'],
  [89, 'THROTTLING_QUOTA_EXCEEDED', 'transient'],
  [90, 'PRODUCER_FENCED', 'fencing'],
  [100, 'UNKNOWN_TOPIC_ID', 'transient'],
  [103, 'INCONSISTENT_TOPIC_ID', 'transient'],
  [NEVER, 'KAFKAJS_UNKNOWN_ERROR_CODE', 'nameless'],
]

function judgementsOf(error: Error): Judgement[] {
  const told = asTidemark(error, 'what was asked')
  expect(told).toBeInstanceOf(told instanceof ConfigurationError ? ConfigurationError : RetryableError)
  const all: [Judgement, boolean][] = [
    ['transient', isTransient(error)],
    ['fencing', isFencing(error)],
    ['configuration', told instanceof ConfigurationError],
    ['nameless', isNameless(error)],
  ]
  return all.flatMap(([judgement, is]) => (is ? [judgement] : []))
}

test.each(JUDGED)('error %i of Kafka, %s, is %s', (code, type, judgement) => {
  const error = errorOf(code)
  expect(typeOf(error)).toBe(type)
  expect(judgementsOf(error)).toEqual([judgement])
})

const LAST_NAMED = 133

test('every other code has a name, and ends what was asked for with an error that may be tried again', () => {
  const judged = new Set(JUDGED.map(([code]) => code))
  for (let code = 1; code <= LAST_NAMED; code++) {
    if (judged.has(code)) continue
    expect([code, judgementsOf(errorOf(code))]).toEqual([code, []])
  }
})

test.each([
  [91, 'RESOURCE_NOT_FOUND'],
  [110, 'FENCED_MEMBER_EPOCH'],
  [120, 'TRANSACTION_ABORTABLE'],
  [LAST_NAMED, 'SHARE_SESSION_LIMIT_REACHED'],
])('error %i, which kafkajs does not know, is %s', (code, type) => {
  const error = errorOf(code)
  expect(typeOf(error)).toBe(type)
  expect(error.message).toBe(`${type}, error ${code} of Kafka`)
})
