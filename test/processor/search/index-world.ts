import assert from 'node:assert/strict'
import * as fc from 'fast-check'
import { MemoryLevel } from 'memory-level'
import pino from 'pino'
import type { Json } from '../../../processor/contract/json.ts'
import { type Indexed, indexedIn, isSamePlace, type Move } from '../../../processor/store/index-entries.ts'
import type { Database, LevelStore } from '../../../processor/store/level-store.ts'
import { LevelStores } from '../../../processor/store/level-stores.ts'
import { encodeStatus } from '../../status-model.ts'
import { LONG, statusWith } from './language/queries.ts'

export const IDS = ['a', 'a.b', 'a:b', 'b', 'ba', 'c1', 'c2', 'c3', 'k1', 'k2', 'z', 'zz']
const id = fc.constantFrom(...IDS)

/** Some have more attributes than have entries, some are of other writers, and some of those are no statuses. */
const strange: fc.Arbitrary<Buffer> = fc.oneof(
  statusWith(fc.constant('x')).map((status) => {
    const many = Object.fromEntries(Array.from({ length: 20 }, (_, i) => [`n${i}`, 'k1']))
    return encodeStatus({ ...status, attributes: { ...many, ...status.attributes } })
  }),
  statusWith(fc.constant('x')).map((status) => {
    return encodeStatus({ ...status, attributes: { tags: Array.from({ length: 30 }, (_, i) => `k${i}`) } })
  }),
  fc
    .tuple(statusWith(fc.constant('x')), fc.constantFrom<Json>({}, [{}], ['k1', []], 'k'.repeat(80)))
    .map(([status, site]) => encodeStatus({ ...status, attributes: { ...status.attributes, site } })),
  statusWith(fc.constant('x')).map((status) => Buffer.from(JSON.stringify({ ...status, lastSeenAt: 5 }))),
  statusWith(fc.constant('x')).map((status) =>
    Buffer.from(JSON.stringify({ ...status, connectivity: { state: '?' } })),
  ),
  statusWith(fc.constant('x')).map((status) => Buffer.from(JSON.stringify(status, undefined, 1))),
  statusWith(fc.constant('other')).map(encodeStatus),
  statusWith(fc.constant('x')).map((status) => {
    const text = encodeStatus({ ...status, attributes: { ...status.attributes, site: 'DEEP' } }).toString()
    return Buffer.from(text.replace('"DEEP"', '['.repeat(5000) + ']'.repeat(5000)))
  }),
  statusWith(fc.constant('x')).map((status) => Buffer.concat([encodeStatus(status).subarray(0, -1), Buffer.from(',')])),
  fc.constantFrom('', 'x', 'null', '5', '[]', '{}', '{"rev":', '{"reported":null}').map((text) => Buffer.from(text)),
)
const alike = fc
  .tuple(statusWith(fc.constant('x')), fc.subarray(LONG))
  .map(([status, tags]) => encodeStatus({ ...status, attributes: { ...status.attributes, tags } }))
const usual = statusWith(fc.constant('x')).map(encodeStatus)
export const stored = fc.oneof({ weight: 8, arbitrary: usual }, { weight: 2, arbitrary: alike }, strange)

type Step =
  | {
      readonly kind: 'write'
      readonly writes: [string, Buffer | null][]
      readonly told: boolean
      readonly fails: Failure
      /** Slices by which the index is built between a write that fails and the next try. */
      readonly between?: number
    }
  | { readonly kind: 'reopen' }
  /** An earlier version had the store, and the building of the index does not come to its end. */
  | { readonly kind: 'upgrade'; readonly slices: number; readonly fails: Failure }
  | { readonly kind: 'build'; readonly slices: number; readonly fails: Failure }
  | { readonly kind: 'wipe' }
/** How often a write fails before it succeeds, and whether what failed was made all the same. */
type Failure = readonly boolean[]

const failure: fc.Arbitrary<Failure> = fc.oneof(
  { weight: 4, arbitrary: fc.constant([]) },
  fc.array(fc.boolean(), { maxLength: 2 }),
)
const write: fc.Arbitrary<Step> = fc.record({
  kind: fc.constant('write' as const),
  writes: fc.array(fc.tuple(id, fc.option(stored, { freq: 4 })), { minLength: 1, maxLength: 6 }),
  told: fc.boolean(),
  fails: failure,
  between: fc.oneof(fc.constant(0), fc.nat(8)),
})
export const anyStep: fc.Arbitrary<Step> = fc.oneof(
  { weight: 8, arbitrary: write },
  { weight: 1, arbitrary: fc.constant({ kind: 'reopen' as const }) },
  {
    weight: 3,
    arbitrary: fc.record({ kind: fc.constant('upgrade' as const), slices: fc.nat(4), fails: failure }),
  },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('build' as const), slices: fc.nat(5), fails: failure }) },
  { weight: 1, arbitrary: fc.constant({ kind: 'wipe' as const }) },
)

/** A store on a database that outlives it, and whose writes can fail. */
export class World {
  readonly #db: Database
  readonly #model = new Map<string, Buffer>()
  #store: LevelStore | undefined
  #position = 1
  failing: boolean[] = []

  constructor() {
    const db = new MemoryLevel<string, Buffer>({ keyEncoding: 'utf8', valueEncoding: 'buffer' })
    const batch = db.batch.bind(db) as () => ReturnType<Database['batch']>
    this.#db = Object.assign(db as unknown as Database, {
      batch: () => {
        const begun = batch()
        const written = begun.write.bind(begun)
        begun.write = async () => {
          const made = this.failing.shift()
          if (made === undefined) return written()
          if (made) await written()
          else await begun.close()
          throw Object.assign(new Error('failed'), { code: 'LEVEL_IO_ERROR' })
        }
        return begun
      },
    })
  }

  get store(): LevelStore {
    if (this.#store === undefined) throw new Error('not open')
    return this.#store
  }

  async open(): Promise<void> {
    const identity = { cluster: '', telemetry: '', status: '', partitions: 1 }
    const stores = await LevelStores.open(this.#db, { identity, logger: pino({ enabled: false }) })
    this.#store = await stores.store(0)
  }

  async take(step: Step): Promise<void> {
    if (step.kind === 'write') return this.#write(step)
    if (step.kind === 'build') return this.#build(step)
    if (step.kind === 'wipe') {
      await this.store.wipe()
      this.#model.clear()
      return
    }
    if (step.kind === 'upgrade') await this.forget()
    await this.open()
    if (step.kind === 'upgrade') await this.#build(step)
  }

  async #write({ writes, told, fails, between = 0 }: Extract<Step, { kind: 'write' }>): Promise<void> {
    const given = new Map(writes.map(([deviceId, value]) => [deviceId, value && ofDevice(deviceId, value)]))
    const moves: Move[] = []
    let added = 0
    for (const [deviceId, value] of given) {
      const [before, after] = [
        indexedOfStored(deviceId, this.#model.get(deviceId)),
        indexedOfStored(deviceId, value ?? undefined),
      ]
      if (!isSamePlace(before, after)) moves.push({ deviceId, before, after })
      added += Number(after !== undefined) - Number(before !== undefined)
    }
    const position = ++this.#position
    const reached = { input: position, changelog: position, whole: true, since: 1 }
    await this.#until(fails, between, () => this.store.commit(given, reached, added, told ? moves : undefined))
    for (const [deviceId, value] of given) {
      if (value === null) this.#model.delete(deviceId)
      else this.#model.set(deviceId, value)
    }
  }

  async #build({ slices, fails }: Extract<Step, { kind: 'build' | 'upgrade' }>): Promise<void> {
    for (let i = 0; i < slices; i++) {
      this.failing = i === slices - 1 ? [...fails] : []
      const failing = this.store.buildIndex(2)
      await (this.failing.length > 0 ? failing.catch(() => undefined) : failing)
    }
    this.failing = []
  }

  async #until(fails: Failure, between: number, work: () => Promise<unknown>): Promise<void> {
    for (let tries = 0; ; tries++) {
      this.failing = fails.slice(tries, tries + 1)
      try {
        await work()
        return
      } catch (error) {
        if (tries > fails.length) throw error
        this.failing = []
        for (let slice = 0; slice < between; slice++) await this.store.buildIndex(2)
      }
    }
  }

  /** As a store of an earlier version. */
  async forget(): Promise<void> {
    const key = 'm00000'
    const bytes = await this.#db.get(key)
    if (bytes === undefined) return
    const { index: _, ...meta } = JSON.parse(bytes.toString()) as { index?: number }
    await this.#db.put(key, Buffer.from(JSON.stringify(meta)))
  }

  async whole(): Promise<void> {
    while (!(await this.store.buildIndex())) continue
    // A commit that failed leaves what is in memory in doubt, until the next.
    if (this.store.index === undefined) await this.take({ kind: 'write', writes: [], told: false, fails: [] })
    assert(this.store.index !== undefined, 'an index that is whole is not usable')
  }

  /** All that is in the index, and all that is counted. */
  async contents(): Promise<[string, string][]> {
    const parts = await Promise.all(
      ['i', 'c'].map((prefix) => this.#db.iterator({ gte: prefix, lt: `${prefix}~` }).all()),
    )
    return parts.flat().map(([key, value]) => [key, value.toString()])
  }
}

function ofDevice(deviceId: string, value: Buffer): Buffer {
  return Buffer.from(value.toString().replace('"x"', JSON.stringify(deviceId)))
}

function indexedOfStored(deviceId: string, value: Uint8Array | undefined): Indexed | undefined {
  return value === undefined ? undefined : indexedIn(deviceId, value)
}
