import * as fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { Checkpoint, StateStore } from '../../processor/store/store.ts'

/** Where the stores under test live: `open` again gives what was committed; `partition` names one of several. */
export interface StoreWorld extends AsyncDisposable {
  open(partition: number): Promise<StateStore>
  /** Closes everything, and opens it anew. */
  restart(): Promise<void>
}

const bytes = (text: string) => Buffer.from(text)
const at = (position: number, whole = true): Checkpoint => ({
  input: position,
  changelog: position,
  whole,
  since: 1000,
})

/** What every StateStore does. */
export function storeContract(title: string, create: () => Promise<StoreWorld>): void {
  describe(`${title} as a StateStore`, () => {
    let world: StoreWorld

    beforeEach(async () => {
      world = await create()
    })

    afterEach(async () => {
      await world[Symbol.asyncDispose]()
    })

    it('is empty and has no checkpoint when new', async () => {
      const store = await world.open(0)
      expect(store.checkpoint).toBeUndefined()
      expect(store.count).toBe(0)
      expect(await store.getMany(['a'])).toEqual([undefined])
      expect(await store.getMany([])).toEqual([])
      expect(await store.range(undefined, 10)).toEqual([])
    })

    it('gives values in the order of the keys, repeated and absent keys included', async () => {
      const store = await world.open(0)
      await store.commit(
        new Map([
          ['b', bytes('2')],
          ['a', bytes('1')],
        ]),
        at(1),
        2,
      )
      const values = await store.getMany(['b', 'x', 'a', 'b'])
      expect(values.map((value) => value && Buffer.from(value).toString())).toEqual(['2', undefined, '1', '2'])
    })

    it('keeps data, checkpoint and count over a restart', async () => {
      const store = await world.open(3)
      await store.commit(
        new Map([
          ['a', bytes('1')],
          ['b', bytes('2')],
        ]),
        at(7),
        2,
      )
      await store.commit(new Map([['a', null]]), at(9, false), -1)
      await world.restart()
      const again = await world.open(3)
      expect(again.checkpoint).toEqual(at(9, false))
      expect(again.count).toBe(1)
      expect(await again.getMany(['a', 'b'])).toEqual([undefined, bytes('2')])
    })

    it('notes when it last held all of a changelog that it is at the end of, and only then', async () => {
      const store = await world.open(0)
      await store.confirm(0, 2000)
      expect(store.checkpoint).toBeUndefined()
      await store.commit(new Map([['a', bytes('1')]]), at(5, false), 1)
      await store.confirm(5, 2000)
      expect(store.checkpoint).toEqual(at(5, false))
      await store.commit(new Map([['b', bytes('1')]]), at(7), 1)
      await store.confirm(8, 2000)
      expect(store.checkpoint).toEqual(at(7))
      await store.confirm(7, 3000)
      await world.restart()
      const again = await world.open(0)
      expect(again.checkpoint).toEqual({ ...at(7), since: 3000 })
      expect(again.count).toBe(2)
    })

    it('commits a checkpoint without writes', async () => {
      const store = await world.open(0)
      await store.commit(new Map(), at(5), 0)
      await world.restart()
      expect((await world.open(0)).checkpoint).toEqual(at(5))
    })

    it('keeps partitions apart, neighbours in name too', async () => {
      const stores = await Promise.all([1, 10, 11].map((partition) => world.open(partition)))
      for (const [i, store] of stores.entries()) await store.commit(new Map([['k', bytes(String(i))]]), at(i), 1)
      await stores[1]?.wipe()
      expect(await stores[0]?.range(undefined, 10)).toEqual([['k', bytes('0')]])
      expect(await stores[1]?.range(undefined, 10)).toEqual([])
      expect(await stores[2]?.getMany(['k'])).toEqual([bytes('2')])
    })

    it('ranges over the keys after one, in byte order, up to the limit', async () => {
      const store = await world.open(0)
      const keys = ['Z', 'a', 'a.b', 'a:b', 'ab', 'b', '~']
      await store.commit(new Map(keys.map((key) => [key, bytes(key)])), at(1), keys.length)
      expect((await store.range(undefined, 100)).map(([key]) => key)).toEqual(keys)
      expect((await store.range('a', 2)).map(([key]) => key)).toEqual(['a.b', 'a:b'])
      expect((await store.range('a0', 1)).map(([key]) => key)).toEqual(['a:b'])
      expect(await store.range('~', 5)).toEqual([])
    })

    it('ranges up to the entry with which it has so many bytes', async () => {
      const store = await world.open(0)
      const keys = Array.from({ length: 50 }, (_, i) => `key-${i + 10}`)
      await store.commit(new Map(keys.map((key) => [key, bytes('-'.repeat(100))])), at(1), keys.length)
      const read = async (...asked: Parameters<typeof store.range>) => (await store.range(...asked)).map(([key]) => key)
      expect(await read(undefined, 50, 250)).toEqual(keys.slice(0, 3))
      expect(await read('key-12', 50, 3000)).toEqual(keys.slice(3, 33))
      expect(await read('key-12', 20, 3000)).toEqual(keys.slice(3, 23))
      expect(await read('key-57', 50, 1)).toEqual(keys.slice(48, 49))
      expect(await read('key-12', 50, 10_000)).toEqual(keys.slice(3))
      expect(await read('key-59', 50, 250)).toEqual([])
    })

    it('loses the count when a commit does not say, and counts again', async () => {
      const store = await world.open(0)
      await store.commit(new Map([['a', bytes('1')]]), at(1))
      expect(store.count).toBeUndefined()
      expect(await store.recount()).toBe(1)
      expect(store.count).toBe(1)
    })

    it('is as new after a wipe, over a restart too', async () => {
      const store = await world.open(0)
      await store.commit(new Map([['a', bytes('1')]]), at(1), 1)
      await store.wipe()
      expect(store.checkpoint).toBeUndefined()
      expect(store.count).toBe(0)
      await world.restart()
      const again = await world.open(0)
      expect(again.checkpoint).toBeUndefined()
      expect(await again.range(undefined, 10)).toEqual([])
      await again.commit(new Map([['b', bytes('2')]]), at(4), 1)
      expect(await again.getMany(['a', 'b'])).toEqual([undefined, bytes('2')])
    })

    it('is of another generation after each wipe, over a restart too', async () => {
      const store = await world.open(0)
      const first = store.generation
      await store.commit(new Map([['a', bytes('1')]]), at(1), 1)
      expect(store.generation).toBe(first)
      const wiping = store.wipe()
      while (store.checkpoint !== undefined) await new Promise((resolve) => setImmediate(resolve))
      const second = store.generation
      expect(second).toBeGreaterThan(first)
      await wiping
      await store.commit(new Map([['a', bytes('1')]]), at(1), 1)
      await world.restart()
      expect((await world.open(0)).generation).toBe(second)
    })

    it('answers many reads of one turn each with its own', async () => {
      const store = await world.open(0)
      const keys = Array.from({ length: 3000 }, (_, i) => `k${i}`)
      await store.commit(new Map(keys.map((key) => [key, bytes(key)])), at(1), keys.length)
      const answers = await Promise.all(keys.map((key, i) => store.getMany(i % 3 === 0 ? [key, 'none', key] : [key])))
      for (const [i, key] of keys.entries()) {
        expect(answers[i]).toEqual(i % 3 === 0 ? [bytes(key), undefined, bytes(key)] : [bytes(key)])
      }
    })

    it('can be closed twice', async () => {
      const store = await world.open(0)
      await store[Symbol.asyncDispose]()
      await store[Symbol.asyncDispose]()
    })

    it('equals a map after any commits', async () => {
      const key = fc.constantFrom('a', 'b', 'c', 'd', 'aa')
      const writes = fc.dictionary(key, fc.option(fc.string({ maxLength: 5 })), { noNullPrototype: true })
      let partition = 100
      await fc.assert(
        fc.asyncProperty(fc.array(writes, { maxLength: 8 }), async (commits) => {
          const store = await world.open(partition++)
          const model = new Map<string, Buffer>()
          for (const [i, commit] of commits.entries()) {
            const before = model.size
            const given = new Map<string, Buffer | null>()
            for (const [name, text] of Object.entries(commit)) {
              given.set(name, text === null ? null : bytes(text))
              if (text === null) model.delete(name)
              else model.set(name, bytes(text))
            }
            await store.commit(given, at(i + 1), model.size - before)
          }
          expect(await store.range(undefined, 100)).toEqual([...model].sort(([a], [b]) => (a < b ? -1 : 1)))
          expect(store.count).toBe(model.size)
          expect(await store.recount()).toBe(model.size)
        }),
        { numRuns: 40 },
      )
    })
  })
}
