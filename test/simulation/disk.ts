import {
  type AbstractBatchOperation,
  AbstractIterator,
  type AbstractIteratorOptions,
  AbstractLevel,
  AbstractSnapshot,
} from 'abstract-level'
import { MemoryLevel } from 'memory-level'
import type { Scheduler } from './scheduler.ts'

type Bytes = MemoryLevel<Buffer, Buffer>
type Operations = AbstractBatchOperation<Bytes, Buffer, Buffer>[]
type Options = AbstractIteratorOptions<Buffer, Buffer> & { snapshot?: SimulatedSnapshot }

export class DiskFailure extends Error {
  readonly code = 'LEVEL_IO_ERROR'

  constructor() {
    super('a simulated failure of the disk')
  }
}

/** What outlives a process. A batch is on it whole, or not at all. */
export class Disk {
  readonly content: Bytes = new MemoryLevel({ storeEncoding: 'buffer', keyEncoding: 'buffer', valueEncoding: 'buffer' })
  readonly scheduler: Scheduler
  /** How many of the next writes fail. Of a failed write nobody can say whether it is on the disk. */
  failing = 0

  constructor(scheduler: Scheduler) {
    this.scheduler = scheduler
  }

  /** The keys, and their values, that begin with `prefix`, which is left out. */
  async entries(prefix: string): Promise<[key: string, value: string][]> {
    const bounds = { gte: Buffer.from(prefix), lt: Buffer.from(`${prefix}\x7f`) }
    const entries = await this.content.iterator(bounds).all()
    return entries.map(([key, value]) => [key.toString().slice(prefix.length), value.toString()])
  }

  async write(operations: Operations): Promise<void> {
    const { scheduler } = this
    const effect = () => this.content.batch(operations.map(copied))
    await scheduler.park(() => void effect())
    const fails = this.failing > 0
    if (fails) this.failing--
    if (!fails || scheduler.chance(0.5)) await effect()
    await scheduler.park()
    if (fails) throw new DiskFailure()
  }
}

/** The caller may use its buffers again. */
function copied(operation: Operations[number]): Operations[number] {
  const key = Buffer.from(operation.key)
  return operation.type === 'put' ? { type: 'put', key, value: Buffer.from(operation.value) } : { type: 'del', key }
}

/** The database of one process on a disk: each of its answers takes its time. */
export class SimulatedLevel<K, V> extends AbstractLevel<Buffer, K, V> {
  readonly #disk: Disk

  constructor(disk: Disk, options: { keyEncoding: string; valueEncoding: string }) {
    super({ encodings: { buffer: true }, implicitSnapshots: true, explicitSnapshots: true }, options)
    this.#disk = disk
  }

  async compactRange(): Promise<void> {}

  release(): void {}

  async _open(): Promise<void> {
    await this.#disk.scheduler.park()
  }

  async _get(key: Buffer, options: Options): Promise<Buffer | undefined> {
    await this.#disk.scheduler.park()
    return this.#disk.content.get(key, inner(options))
  }

  async _getMany(keys: Buffer[], options: Options): Promise<(Buffer | undefined)[]> {
    await this.#disk.scheduler.park()
    return this.#disk.content.getMany(keys, inner(options))
  }

  _put(key: Buffer, value: Buffer): Promise<void> {
    return this.#disk.write([{ type: 'put', key, value }])
  }

  _del(key: Buffer): Promise<void> {
    return this.#disk.write([{ type: 'del', key }])
  }

  _batch(operations: Operations): Promise<void> {
    return this.#disk.write(operations)
  }

  async _clear(options: Options): Promise<void> {
    await this.#disk.scheduler.park()
    await this.#disk.content.clear(inner(options))
    await this.#disk.scheduler.park()
  }

  _iterator(options: Options): AbstractIterator<this, Buffer, Buffer> {
    return new SimulatedIterator(this, options, this.#disk)
  }

  _snapshot(options: object): SimulatedSnapshot {
    return new SimulatedSnapshot(options, this.#disk)
  }
}

function inner(options: Options): object {
  return { ...options, snapshot: options.snapshot?.inner, keyEncoding: 'buffer', valueEncoding: 'buffer' }
}

class SimulatedSnapshot extends AbstractSnapshot {
  readonly inner

  constructor(options: object, disk: Disk) {
    // Its options are not part of the published types.
    super(...([options] as unknown as []))
    this.inner = disk.content.snapshot()
  }

  _close(): Promise<void> {
    return this.inner.close()
  }
}

class SimulatedIterator<DB> extends AbstractIterator<DB, Buffer, Buffer> {
  readonly #inner
  readonly #scheduler: Scheduler

  constructor(db: DB, options: Options, disk: Disk) {
    super(db, options)
    this.#inner = disk.content.iterator(inner(options))
    this.#scheduler = disk.scheduler
  }

  async _next(): Promise<[Buffer, Buffer] | undefined> {
    await this.#scheduler.park()
    return this.#inner.next()
  }

  async _nextv(size: number): Promise<[Buffer, Buffer][]> {
    await this.#scheduler.park()
    return this.#inner.nextv(size)
  }

  async _all(): Promise<[Buffer, Buffer][]> {
    await this.#scheduler.park()
    return this.#inner.all()
  }

  _close(): Promise<void> {
    return this.#inner.close()
  }
}
