import { inMemory } from './runtime/resources.ts'

export interface ProcessorLimits {
  /** Bounds of one batch of telemetry: records, and bytes of their values. */
  readonly batchRecords: number
  readonly batchBytes: number
  /** JSON bytes of the statuses that one commit may start from: a batch with more is committed in parts. */
  readonly statusBytes: number
  /** Records of all partitions under way, from fold to store; fewer with large statuses: see `InFlight`. */
  readonly inFlightRecords: number
  /** Least time between two commits of a partition, ms, while it is not behind: see `restAfter`. */
  readonly minCommitIntervalMs: number
  /** Bounds of one batch of the changelog. */
  readonly changelogRecords: number
  readonly changelogBytes: number
  /**
   * Cached statuses of all partitions: entries, and bytes of their JSON. Those that were read have their JSON beside
   * them, so the cache may take twice these bytes. The default shrinks with the memory.
   */
  readonly cacheEntries: number
  readonly cacheBytes: number
  /** Milliseconds between two refreshes of the lag: a copy that does not move would not know it. */
  readonly lagRefreshMs: number
  /** First and longest wait before a failed write of the store is tried again, ms. */
  readonly retryMinMs: number
  readonly retryMaxMs: number
}

export const DEFAULT_LIMITS: ProcessorLimits = {
  batchRecords: 4000,
  batchBytes: 2 * 1024 * 1024,
  statusBytes: 8 * 1024 * 1024,
  inFlightRecords: 12_000,
  minCommitIntervalMs: 10,
  changelogRecords: 4000,
  changelogBytes: 8 * 1024 * 1024,
  cacheEntries: inMemory(120_000),
  cacheBytes: inMemory(80 * 1024 * 1024),
  lagRefreshMs: 5000,
  retryMinMs: 100,
  retryMaxMs: 5000,
}
