import { ConfigurationError, RetryableError, reasonOf, TidemarkError } from '../../../contract/errors.ts'

/**
 * The errors of Kafka's protocol, and what follows from each, whichever request it answers. Names are those of
 * kafkajs, some older than Kafka's. A code in none of these sets ends the request with a RetryableError. What follows
 * from a code for one request alone stands where that request is made.
 */

/** Time cures these, or another broker. */
const TRANSIENT: ReadonlySet<string> = new Set([
  'UNKNOWN_TOPIC_OR_PARTITION',
  'LEADER_NOT_AVAILABLE',
  'NOT_LEADER_FOR_PARTITION',
  'REQUEST_TIMED_OUT',
  'BROKER_NOT_AVAILABLE',
  'REPLICA_NOT_AVAILABLE',
  'NETWORK_EXCEPTION',
  'GROUP_LOAD_IN_PROGRESS',
  'GROUP_COORDINATOR_NOT_AVAILABLE',
  'NOT_COORDINATOR_FOR_GROUP',
  'NOT_ENOUGH_REPLICAS',
  'NOT_ENOUGH_REPLICAS_AFTER_APPEND',
  'NOT_CONTROLLER',
  'CONCURRENT_TRANSACTIONS',
  'KAFKA_STORAGE_ERROR',
  'FENCED_LEADER_EPOCH',
  'UNKNOWN_LEADER_EPOCH',
  'OFFSET_NOT_AVAILABLE',
  'UNSTABLE_OFFSET_COMMIT',
  'THROTTLING_QUOTA_EXCEEDED',
  'UNKNOWN_TOPIC_ID',
  'INCONSISTENT_TOPIC_ID',
])

/** A newer producer has taken the transactional id. */
const FENCING: ReadonlySet<string> = new Set([
  'INVALID_PRODUCER_EPOCH',
  'INVALID_PRODUCER_ID_MAPPING',
  'PRODUCER_FENCED',
])

/** Whether retrying is useless until a person changes something. */
function isRefusal(name: string): boolean {
  return name.endsWith('AUTHORIZATION_FAILED') || name === 'SASL_AUTHENTICATION_FAILED'
}

/** UNKNOWN_SERVER_ERROR, and kafkajs's name for codes newer than the list below. */
const NAMELESS: ReadonlySet<string> = new Set(['UNKNOWN', 'KAFKAJS_UNKNOWN_ERROR_CODE'])

const FIRST_NEWER = 89
/** Codes from 89 on, in their order, by their names in Kafka 4.1 (Errors.java): kafkajs ends at 88. */
const NEWER = [
  'THROTTLING_QUOTA_EXCEEDED',
  'PRODUCER_FENCED',
  'RESOURCE_NOT_FOUND',
  'DUPLICATE_RESOURCE',
  'UNACCEPTABLE_CREDENTIAL',
  'INCONSISTENT_VOTER_SET',
  'INVALID_UPDATE_VERSION',
  'FEATURE_UPDATE_FAILED',
  'PRINCIPAL_DESERIALIZATION_FAILURE',
  'SNAPSHOT_NOT_FOUND',
  'POSITION_OUT_OF_RANGE',
  'UNKNOWN_TOPIC_ID',
  'DUPLICATE_BROKER_REGISTRATION',
  'BROKER_ID_NOT_REGISTERED',
  'INCONSISTENT_TOPIC_ID',
  'INCONSISTENT_CLUSTER_ID',
  'TRANSACTIONAL_ID_NOT_FOUND',
  'FETCH_SESSION_TOPIC_ID_ERROR',
  'INELIGIBLE_REPLICA',
  'NEW_LEADER_ELECTED',
  'OFFSET_MOVED_TO_TIERED_STORAGE',
  'FENCED_MEMBER_EPOCH',
  'UNRELEASED_INSTANCE_ID',
  'UNSUPPORTED_ASSIGNOR',
  'STALE_MEMBER_EPOCH',
  'MISMATCHED_ENDPOINT_TYPE',
  'UNSUPPORTED_ENDPOINT_TYPE',
  'UNKNOWN_CONTROLLER_ID',
  'UNKNOWN_SUBSCRIPTION_ID',
  'TELEMETRY_TOO_LARGE',
  'INVALID_REGISTRATION',
  'TRANSACTION_ABORTABLE',
  'INVALID_RECORD_STATE',
  'SHARE_SESSION_NOT_FOUND',
  'INVALID_SHARE_SESSION_EPOCH',
  'FENCED_STATE_EPOCH',
  'INVALID_VOTER_KEY',
  'DUPLICATE_VOTER',
  'VOTER_NOT_FOUND',
  'INVALID_REGULAR_EXPRESSION',
  'REBOOTSTRAP_REQUIRED',
  'STREAMS_INVALID_TOPOLOGY',
  'STREAMS_INVALID_TOPOLOGY_EPOCH',
  'STREAMS_TOPOLOGY_FENCED',
  'SHARE_SESSION_LIMIT_REACHED',
]

/** In the form of kafkajs's own table. */
export const NEWER_CODES = NEWER.map((type, i) => {
  const code = FIRST_NEWER + i
  return { type, code, retriable: TRANSIENT.has(type), message: `${type}, error ${code} of Kafka` }
})

/** The type of a Kafka protocol error, such as NOT_COORDINATOR_FOR_GROUP; undefined for other errors. */
export function typeOf(error: unknown): string | undefined {
  if (typeof error !== 'object' || error === null || !('type' in error)) return undefined
  return typeof error.type === 'string' ? error.type : undefined
}

/** Whether the same request may succeed later: a transient protocol error, or no answer at all. */
export function isTransient(error: unknown): boolean {
  if (error instanceof TidemarkError) return error instanceof RetryableError
  const type = typeOf(error)
  if (type !== undefined) return TRANSIENT.has(type)
  return error instanceof Error && CONNECTION_ERRORS.has(error.name) && !isDistrust(error)
}

/** The broker failed without a reason, or with a code that nobody knows here. */
export function isNameless(error: unknown): boolean {
  const type = typeOf(error)
  return type !== undefined && NAMELESS.has(type)
}

/** The other side's certificate is refused, and will be the next time. */
function isDistrust(error: Error): boolean {
  return 'code' in error && typeof error.code === 'string' && /CERT|^ERR_TLS|^ERR_SSL/.test(error.code)
}

const CONNECTION_ERRORS = new Set([
  'KafkaJSConnectionError',
  'KafkaJSConnectionClosedError',
  'KafkaJSRequestTimeoutError',
  'KafkaJSLockTimeout',
])

/** The error that callers of the log port get. */
export function asTidemark(error: unknown, what: string): TidemarkError {
  if (error instanceof TidemarkError) return error
  const reason = reasonOf(error)
  if (isFatal(error)) return new ConfigurationError('INVALID_CONFIGURATION', `${what}: ${reason}`, error)
  return new RetryableError('LOG_UNAVAILABLE', `${what}: ${reason}`, error)
}

/** A person must change something before Kafka lets the caller in. */
function isFatal(error: unknown): boolean {
  const type = typeOf(error)
  if (type !== undefined && isRefusal(type)) return true
  return error instanceof Error && (error.name === 'KafkaJSSASLAuthenticationError' || isDistrust(error))
}

export function isFencing(error: unknown): boolean {
  const type = typeOf(error)
  return type !== undefined && FENCING.has(type)
}
