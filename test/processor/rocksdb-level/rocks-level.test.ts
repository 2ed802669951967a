import { mkdir, open, readdir, stat, writeFile } from 'node:fs/promises'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { describe, onTestFinished, test } from 'vitest'
import { describeHolder, writeOwner } from '../../../processor/rocksdb-level/folder.ts'
import { RocksLevel, type RocksLevelOptions } from '../../../processor/rocksdb-level/index.ts'
import { temporaryFolder } from './folder.ts'

async function openDb(options: RocksLevelOptions<string, string> = {}): Promise<RocksLevel> {
  const db = new RocksLevel(join(await temporaryFolder(), 'db'), options)
  onTestFinished(() => db.close())
  await db.open()
  return db
}

const key = (n: number) => String(n).padStart(6, '0')

async function fill(db: RocksLevel, count: number): Promise<void> {
  await db.batch(Array.from({ length: count }, (_, n) => ({ type: 'put', key: key(n), value: `v${n}` })))
}

describe('reading in order', () => {
  test('nextv gives what is asked for, whatever sizes are mixed', async ({ expect }) => {
    const db = await openDb()
    await fill(db, 12_000)
    for (const reverse of [false, true]) {
      const iterator = db.keys({ reverse })
      const seen: string[] = []
      for (const size of [1, 3, 1000, 2, 5000, 4096, 1, 10_000]) {
        const left = 12_000 - seen.length
        const one = await iterator.next()
        if (one !== undefined) seen.push(one)
        const chunk = await iterator.nextv(size)
        expect(chunk.length).toBe(Math.max(0, Math.min(size, left - 1)))
        seen.push(...chunk)
      }
      const expected = Array.from({ length: 12_000 }, (_, n) => key(reverse ? 11_999 - n : n))
      expect(seen).toEqual(expected)
      await iterator.close()
    }
  })

  test('an iterator sees the moment it was made, across writes, flushes and larger reads', async ({ expect }) => {
    const db = await openDb({ writeBufferSize: 64 * 1024 })
    await fill(db, 5000)
    const iterator = db.iterator()
    const writing = new AbortController()
    const writer = (async () => {
      for (let round = 0; !writing.signal.aborted; round++) {
        await db.batch([
          { type: 'put', key: `new-${round}`, value: 'x' },
          { type: 'put', key: key(round % 5000), value: 'changed' },
          { type: 'del', key: key(4999 - (round % 5000)) },
        ])
      }
    })()
    const seen: [string, string][] = []
    for (let size = 1; ; size *= 3) {
      const chunk = await iterator.nextv(size)
      if (chunk.length === 0) break
      seen.push(...chunk)
      if (size === 81) await db.flush()
    }
    expect(seen).toEqual(Array.from({ length: 5000 }, (_, n) => [key(n), `v${n}`]))
    writing.abort()
    await writer
  })

  test('bounds that are empty keys', async ({ expect }) => {
    const db = await openDb()
    await db.batch([
      { type: 'put', key: '', value: 'empty' },
      { type: 'put', key: 'a', value: '' },
    ])
    expect(await db.get('')).toBe('empty')
    expect(await db.get('a')).toBe('')
    for (const reverse of [false, true]) {
      expect(await db.keys({ lt: '', reverse }).all()).toEqual([])
      expect(await db.keys({ lte: '', reverse }).all()).toEqual([''])
      expect(await db.keys({ gt: '', reverse }).all()).toEqual(['a'])
      expect(await db.keys({ gte: 'b', lt: 'a', reverse }).all()).toEqual([])
      expect((await db.keys({ gte: '', reverse }).all()).sort()).toEqual(['', 'a'])
    }
    await db.clear({ lte: '' })
    expect(await db.keys().all()).toEqual(['a'])
  })

  test('large values are not read ahead by the hundred', async ({ expect }) => {
    const db = await openDb()
    for (let n = 0; n < 40; n++) await db.put(key(n), 'x'.repeat(500_000))
    let count = 0
    for await (const [, value] of db.iterator()) count += value.length
    expect(count).toBe(40 * 500_000)
  })
})

test('clear removes a range, a limited range, and what a snapshot holds', async ({ expect }) => {
  const db = await openDb()
  await fill(db, 3000)
  await db.clear({ gte: key(10), lt: key(2990) })
  expect((await db.keys().all()).length).toBe(20)
  await db.clear({ reverse: true, limit: 5 })
  expect((await db.keys().all()).at(-1)).toBe(key(2994))
  const snapshot = db.snapshot()
  await db.put('z', 'later')
  await db.clear({ snapshot })
  await snapshot.close()
  expect(await db.keys().all()).toEqual(['z'])
  await db.put(Buffer.from([255, 255]), 'x', { keyEncoding: 'buffer' })
  await db.clear()
  expect(await db.keys().all()).toEqual([])
  await db.clear()
})

test('a snapshot of another database is refused', async ({ expect }) => {
  const [one, other] = [await openDb(), await openDb()]
  await using snapshot = other.snapshot()
  await expect(one.get('a', { snapshot })).rejects.toThrow('not one of this database')
})

test('closes with iterators, snapshots, batches and reads under way, and opens again', async ({ expect }) => {
  const db = await openDb()
  await fill(db, 5000)
  const iterator = db.iterator()
  await iterator.next()
  db.iterator()
  db.snapshot()
  db.batch().put('never', 'written')
  const reading = iterator.nextv(1000)
  const written = db.batch(Array.from({ length: 500 }, (_, n) => ({ type: 'put', key: `w${n}`, value: 'x' })))
  await db.close()
  expect((await reading).length).toBe(1000)
  await written

  await db.open()
  expect(await db.get('never')).toBe(undefined)
  expect((await db.keys({ gte: 'w' }).all()).length).toBe(500)
  expect(await db.get(key(4999))).toBe('v4999')
})

test('a batch is refused whole when an encoding does not give bytes, and the database still closes', async ({
  expect,
}) => {
  const db = await openDb()
  const valueEncoding = {
    name: 'broken',
    format: 'buffer' as const,
    encode: () => 123 as unknown as Buffer,
    decode: String,
  }
  await expect(db.put('a', 'x', { valueEncoding })).rejects.toThrow('must encode to a Buffer')
  await expect(
    db.batch([
      { type: 'put', key: 'a', value: 'x' },
      { type: 'put', key: 'b', value: 'x', valueEncoding },
    ]),
  ).rejects.toThrow('must encode to a Buffer')
  const chained = db.batch()
  expect(() => chained.put('a', 'x', { valueEncoding })).toThrow('must encode to a Buffer')
  await chained.close()
  expect(await db.keys().all()).toEqual([])
})

describe('opening', () => {
  test('a folder this process holds says so', async ({ expect }) => {
    const db = await openDb()
    const second = new RocksLevel(db.location)
    await expect(second.open()).rejects.toMatchObject({
      cause: {
        code: 'LEVEL_LOCKED',
        message: `The database ${db.location} is held by this process (pid ${process.pid})`,
      },
    })
    await db.close()
    await second.open()
    await second.close()
  })

  test('the OWNER file names the holder', async ({ expect }) => {
    const folder = await temporaryFolder()
    expect(await describeHolder(folder)).toBe('another process')
    await writeOwner(folder)
    expect(await describeHolder(folder)).toBe(`this process (pid ${process.pid})`)
    await writeFile(join(folder, 'OWNER'), '{"pid":7,"host":"elsewhere.example"}')
    expect(await describeHolder(folder)).toBe('process 7 on host elsewhere.example')
    await writeFile(join(folder, 'OWNER'), JSON.stringify({ pid: 2 ** 22 + 1, host: hostname() }))
    expect(await describeHolder(folder), 'a name of the dead').toBe('another process')
  })

  test('a path that cannot be a folder is named, and the wait is not endless', async ({ expect }) => {
    const folder = await temporaryFolder()
    await writeFile(join(folder, 'file'), '')
    for (const path of [join(folder, 'file'), join(folder, 'file/db'), '/proc/none/db']) {
      await expect(new RocksLevel(path).open()).rejects.toMatchObject({
        code: 'LEVEL_DATABASE_NOT_OPEN',
        cause: { code: 'LEVEL_IO_ERROR', message: expect.stringContaining(path) },
      })
    }
  })

  test('createIfMissing: false makes nothing, errorIfExists refuses', async ({ expect }) => {
    const folder = join(await temporaryFolder(), 'db')
    const db = new RocksLevel(folder)
    await expect(db.open({ createIfMissing: false })).rejects.toMatchObject({ cause: { code: 'LEVEL_NOT_FOUND' } })
    await expect(stat(folder)).rejects.toMatchObject({ code: 'ENOENT' })
    await mkdir(folder)
    await expect(db.open({ createIfMissing: false })).rejects.toMatchObject({ cause: { code: 'LEVEL_NOT_FOUND' } })
    await db.open()
    await db.close()
    await expect(db.open({ errorIfExists: true })).rejects.toMatchObject({ cause: { code: 'LEVEL_ALREADY_EXISTS' } })
  })

  test('an option of a wrong type or size is refused by name', async ({ expect }) => {
    const folder = await temporaryFolder()
    for (const options of [
      { writeBufferSize: 1 },
      { maxOpenFiles: -2 },
      { bloomFilterBitsPerKey: Number.NaN },
      { blockSize: 1.5 },
    ]) {
      const name = Object.keys(options)[0] ?? ''
      await expect(new RocksLevel(folder, options).open()).rejects.toMatchObject({
        cause: { message: expect.stringContaining(name) },
      })
    }
  })

  test('every option is taken', async ({ expect }) => {
    const db = await openDb({
      writeBufferSize: 1 << 20,
      maxWriteBufferNumber: 2,
      maxOpenFiles: -1,
      blockCache: false,
      blockSize: 4096,
      bloomFilterBitsPerKey: 0,
    })
    await fill(db, 100)
    await db.flush()
    expect(await db.get(key(50))).toBe('v50')
  })
})

test('flush and compactRange, also while the database opens', async ({ expect }) => {
  const db = new RocksLevel(join(await temporaryFolder(), 'db'))
  onTestFinished(() => db.close())
  await fill(db, 2000)
  await db.flush()
  expect((await readdir(db.location)).some((name) => name.endsWith('.sst'))).toBe(true)
  await db.clear()
  await db.flush()
  await db.compactRange(key(0), key(2000))
  await db.compactRange()
})

test('release empties a value of its own memory, and no other', async ({ expect }) => {
  const db = await openDb({ valueEncoding: 'buffer' })
  const large = Buffer.alloc(100_000, 'x')
  await db.put('large', large as never)
  await db.put('small', Buffer.from('small') as never)
  db.release(large)
  expect(large.length).toBe(0)
  const neighbour = Buffer.from('neighbour')
  const entries = (await db.iterator().all()) as unknown as [string, Buffer][]
  const values = entries.map(([, value]) => value)
  expect(values.map((value) => value.length)).toEqual([100_000, 5])
  for (const value of values) db.release(value)
  expect(values[0]?.length).toBe(0)
  db.release(neighbour)
  expect(neighbour.toString()).toBe('neighbour')
  expect(String(await db.get('large'))).toBe('x'.repeat(100_000))
})

/** What compares buffers byte by byte takes seconds for many. */
function texts(entries: readonly [string, Buffer][]): [string, string][] {
  return entries.map(([id, value]) => [id, value.toString('latin1')])
}

test('what is small shares memory, and nothing that is released takes it away', async ({ expect }) => {
  const db = await openDb({ valueEncoding: 'buffer' })
  const sizes = Array.from({ length: 200 }, (_, i) => [0, 1, 700, 4095, 4096, 4097, 9000][i % 7] as number)
  const written = sizes.map((size, i): [string, Buffer] => [key(i), Buffer.alloc(size, `v${i}`)])
  await db.batch(written.map(([id, value]) => ({ type: 'put', key: id, value: value as never })))
  const keys = written.map(([id]) => id)
  const iterator = db.iterator()
  const reads = [
    (await db.iterator().all()) as unknown as [string, Buffer][],
    (await iterator.nextv(1000)) as unknown as [string, Buffer][],
    ((await db.getMany(keys)) as unknown as Buffer[]).map((value, i): [string, Buffer] => [keys[i] as string, value]),
  ]
  await iterator.close()
  for (const entries of reads) {
    expect(texts(entries)).toEqual(texts(written))
    expect(new Set(entries.map(([, value]) => value.buffer)).size).toBeLessThan(100)
    for (const [, value] of entries) db.release(value)
    expect(entries.map(([, value]) => value.length)).toEqual(sizes.map((size) => (size > 4096 ? 0 : size)))
    expect(texts(entries.filter(([, { length }]) => length > 0))).toEqual(
      texts(written.filter((_, i) => [1, 2, 3, 4].includes(i % 7))),
    )
  }
})

test('a damaged file is reported as corruption, and told of, whatever meets it', async ({ expect }) => {
  const db = await openDb({ blockCache: false })
  await fill(db, 20_000)
  await db.flush()
  await db.close()
  const table = (await readdir(db.location)).find((name) => name.endsWith('.sst')) ?? ''
  const file = await open(join(db.location, table), 'r+')
  await file.write(Buffer.alloc(100_000, 0x55), 0, 100_000, 10_000)
  await file.close()

  await db.open()
  const told: unknown[] = []
  db.on('corruption', (error) => told.push(error))
  const meets = async (operation: Promise<unknown>) => {
    const failure = await operation.catch((error: unknown) => error)
    expect(failure).toMatchObject({ code: 'LEVEL_CORRUPTION', message: expect.stringContaining(db.location) })
    expect(told).toContain(failure)
  }
  await meets(db.iterator().all())
  await meets(db.get(key(1000)))
  await meets(db.getMany([key(19_999), key(1000)]))
  await db.clear()
  await meets(db.compactRange())
  await meets(db.batch().put('new', 'x').write())
})
