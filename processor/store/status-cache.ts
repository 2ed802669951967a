import type { HeldStatus } from '../status/held-status.ts'

export interface CachedStatus {
  readonly deviceId: string
  /** The task that holds the entry. To any other task it is stale. */
  readonly owner: object
  status: HeldStatus
  /** Its JSON, once it has been read since it changed. */
  json: Buffer | undefined
  /** The owner's batch that changed it last. Until that batch is in the store, `status` is uncommitted. */
  batch: number
  /** Size of its JSON, bytes. */
  bytes: number
}

interface Node extends CachedStatus {
  held: boolean
  visited: boolean
  newer: Node | undefined
  older: Node | undefined
}

export interface CacheLimits {
  readonly maxEntries: number
  /** Bytes of JSON. */
  readonly maxBytes: number
}

/** Recently used entries that one eviction skips. Skipping all of them would block the event loop. */
const MAX_SWEEP = 1024

/** At the bound one device in this many is admitted (bimodal insertion, Qureshi et al., ISCA 2007). */
const ADMIT_ONE_IN = 8

/**
 * The hot statuses of all tasks of a process, within one bound; at the bound the least used ones go, to be read from
 * the store again. Eviction is SIEVE (Zhang et al., NSDI 2024): a hit only sets a mark, and one pass of cold devices
 * does not push out the hot ones. Of a fleet that is larger, reporting in turns, all would come and go unused: most are
 * not let in, which spares the collector their moves, and those that are stay until their turn comes again.
 */
export class StatusCache {
  readonly #limits: CacheLimits
  readonly #nodes = new Map<string, Node>()
  #newest: Node | undefined
  #oldest: Node | undefined
  #hand: Node | undefined
  #bytes = 0
  #turnedUp = 0

  constructor(limits: CacheLimits) {
    this.#limits = limits
  }

  get size(): number {
    return this.#nodes.size
  }

  /** Sum of the entries' `bytes`. */
  get bytes(): number {
    return this.#bytes
  }

  get(deviceId: string, owner: object): CachedStatus | undefined {
    const node = this.#nodes.get(deviceId)
    if (node === undefined || node.owner !== owner) return undefined
    node.visited = true
    return node
  }

  /** Replaces the device's entry. Any later call may evict it. Undefined when it was not admitted. */
  add(status: HeldStatus, owner: object, batch: number, bytes: number): CachedStatus | undefined {
    const { deviceId } = status
    const old = this.#nodes.get(deviceId)
    if (old !== undefined) this.#remove(old)
    const { maxEntries, maxBytes } = this.#limits
    const full = this.#nodes.size >= maxEntries || this.#bytes + bytes > maxBytes
    if (full && this.#turnedUp++ % ADMIT_ONE_IN !== 0) return undefined
    const older = this.#newest
    const node: Node = {
      deviceId,
      owner,
      status,
      json: undefined,
      batch,
      bytes,
      held: true,
      visited: false,
      newer: undefined,
      older,
    }
    if (this.#newest === undefined) this.#oldest = node
    else this.#newest.newer = node
    this.#newest = node
    this.#nodes.set(deviceId, node)
    this.#bytes += bytes
    this.#evict(node)
    return node
  }

  /** Records the new JSON size of `entry`, which may have been evicted. */
  resize(entry: CachedStatus, bytes: number): void {
    const { held } = entry as Node
    if (held) this.#bytes += bytes - entry.bytes
    entry.bytes = bytes
    if (held && this.#bytes > this.#limits.maxBytes) this.#evict(undefined)
  }

  delete(deviceId: string): void {
    const node = this.#nodes.get(deviceId)
    if (node !== undefined) this.#remove(node)
  }

  #evict(keep: Node | undefined): void {
    while (this.#nodes.size > this.#limits.maxEntries || this.#bytes > this.#limits.maxBytes) {
      let node = this.#hand ?? this.#oldest
      for (let sweep = 0; node?.visited === true && sweep < MAX_SWEEP; sweep++) {
        node.visited = false
        node = node.newer ?? this.#oldest
      }
      if (node === undefined || (node === keep && this.#nodes.size === 1)) return
      this.#hand = node.newer
      if (node !== keep) this.#remove(node)
    }
  }

  #remove(node: Node): void {
    this.#nodes.delete(node.deviceId)
    this.#bytes -= node.bytes
    node.held = false
    if (this.#hand === node) this.#hand = node.newer
    if (node.newer === undefined) this.#newest = node.older
    else node.newer.older = node.older
    if (node.older === undefined) this.#oldest = node.newer
    else node.older.newer = node.newer
  }
}
