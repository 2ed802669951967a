import { Registry } from 'prom-client'
import { describe, expect, it } from 'vitest'
import type { AppOptions } from '../../../api/app.ts'
import { LogCorruptedError, RetryableError } from '../../../processor/contract/errors.ts'
import { aborted } from '../../../processor/runtime/pause.ts'
import { ask } from '../conformance.ts'
import { type Stage, stage } from '../stage.ts'
import { MemoryLetters } from './memory.ts'

const ROUTE = '/v1/dead-letters'
const MIB = 1024 * 1024

let on: Stage

async function over(letters: MemoryLetters, options: Partial<AppOptions> = {}): Promise<Stage> {
  return (on = await stage({ letters, ...options }))
}

/** Letters of so many bytes, all in one partition. */
function lettersOf(count: number, bytes: number): MemoryLetters {
  const letters = new MemoryLetters(1)
  const value = Buffer.alloc(bytes, 'x')
  for (let i = 0; i < count; i++) letters.add(0, { key: `d${i}`, value, timestamp: i })
  return letters
}

/** Makes reading partition 2 fail. */
function failing(error: Error): (letters: MemoryLetters) => void {
  return (letters) => {
    const read = letters.read.bind(letters)
    letters.read = (partition, ...rest) => {
      if (partition === 2) throw error
      return read(partition, ...rest)
    }
  }
}

async function offsets(query = ''): Promise<number[]> {
  const { status, body } = await ask(on.api, `${ROUTE}?${query}`)
  expect(status).toBe(200)
  return body.items.map((item) => (item as unknown as { offset: number }).offset)
}

describe('bounds of reading dead letters', () => {
  it('reads large ones a few at a time, and ends a page when it has examined enough', async () => {
    const letters = lettersOf(100, MIB)
    const { api } = await over(letters)
    const { body } = await ask(api, ROUTE)
    expect(body).toMatchObject({ complete: false, nextCursor: expect.any(String) })
    expect(body.items.length).toBeGreaterThan(10)
    expect(body.items.length).toBeLessThan(64)
    // The first window was given up, and those after it are of what fits.
    expect(letters.windows[0]).toBe(100)
    expect(Math.max(...letters.windows.slice(1))).toBeLessThan(8)
    const seen = body.items.length
    expect((await offsets(`cursor=${body.nextCursor}`))[0]).toBe(99 - seen)
  })

  it('comes on by every page, however many partitions have large ones', async () => {
    const letters = new MemoryLetters(64)
    const value = Buffer.alloc(MIB, 'x')
    for (let i = 0; i < 20; i++) {
      for (let partition = 0; partition < 64; partition++) letters.add(partition, { value, timestamp: i })
    }
    await over(letters, { limits: { maxLetterBytesExamined: 8 * MIB } })
    const { body } = await ask(on.api, ROUTE)
    expect(body).toMatchObject({ complete: false, nextCursor: expect.any(String) })
    expect(body.items.length).toBeGreaterThan(0)
  })

  it('ends a page early when its letters are long', async () => {
    // Each character takes six in JSON.
    const letters = new MemoryLetters(1)
    for (let i = 0; i < 500; i++) letters.add(0, { value: Buffer.alloc(4096), timestamp: i })
    const { api } = await over(letters)
    const { body, text } = await ask(api, `${ROUTE}?limit=1000`)
    expect(text.length).toBeLessThan(4.1 * MIB)
    expect(body.nextCursor).toBeDefined()
    expect(body).not.toHaveProperty('complete')
  })

  it('looks for no more when it holds enough, and gives what it has', async () => {
    const letters = new MemoryLetters(16)
    for (let i = 0; i < 90; i++) {
      for (let partition = 0; partition < 16; partition++) letters.add(partition, { value: Buffer.alloc(4096) })
    }
    const { api } = await over(letters)
    const { body } = await ask(api, `${ROUTE}?limit=1000`)
    expect(letters.windows.length).toBeLessThan(16)
    expect(body).toMatchObject({ complete: false, nextCursor: expect.any(String) })
    expect(body).toHaveProperty('reason', expect.stringContaining(`${16 * MIB} characters of those found`))
    expect(body.items.length).toBeGreaterThan(100)
  })

  it('looks for few among many by longer and longer windows', async () => {
    const letters = new MemoryLetters(1)
    letters.add(0, { headers: { reason: 'too-deep' } })
    for (let i = 0; i < 9_000; i++) letters.add(0, { headers: { reason: 'not-json' } })
    await over(letters)
    expect(await offsets('reason=too-deep&limit=1')).toEqual([0])
    expect(letters.windows.length).toBeLessThan(10)
    expect(Math.max(...letters.windows)).toBe(4096)
  })

  it('asks anew where letters begin when retention overtakes it', async () => {
    const letters = lettersOf(50, 10)
    letters.before = () => {
      letters.remove(0, 47)
      return undefined
    }
    await over(letters)
    expect(await offsets()).toEqual([49, 48, 47])
  })

  it('answers 503 when retention overtakes it again and again', async () => {
    const letters = lettersOf(100, 10)
    let start = 0
    letters.before = () => {
      letters.remove(0, (start += 10))
      return undefined
    }
    const { api } = await over(letters)
    const { status, body } = await ask(api, ROUTE)
    expect([status, body.type]).toEqual([503, 'urn:tidemark:problem:log-unavailable'])
  })

  it('refuses more requests than may read at once, and takes one when another has ended', async () => {
    const letters = lettersOf(1, 10)
    const registry = new Registry()
    const { api } = await over(letters, { registry, limits: { maxLetterReads: 1 } })
    const held = Promise.withResolvers<void>()
    letters.before = () => held.promise
    const under = api.inject(ROUTE)
    const metric = registry.getSingleMetric('tidemark_http_reads_in_flight')
    const reads = async () => (await metric?.get())?.values.find(({ labels }) => labels.kind === 'letters')?.value
    await expect.poll(reads).toBe(1)
    const refused = await ask(api, ROUTE)
    expect(refused).toMatchObject({ status: 503, headers: { 'retry-after': '1' } })
    expect(refused.body.type).toBe('urn:tidemark:problem:overloaded')
    held.resolve()
    expect((await under).statusCode).toBe(200)
    expect(await offsets()).toEqual([0])
  })

  it.each([
    [
      'does not tell where letters begin',
      (letters: MemoryLetters) => {
        letters.bounds = () => new Promise(() => {})
      },
    ],
    [
      'gives none',
      (letters: MemoryLetters) => {
        letters.before = aborted
      },
    ],
    [
      'fails',
      (letters: MemoryLetters) => {
        letters.before = () => Promise.reject(new RetryableError('LOG_UNAVAILABLE', 'no broker'))
      },
    ],
  ])('answers 503 when the log %s', async (_, spoil) => {
    const letters = lettersOf(10, 10)
    spoil(letters)
    const { api } = await over(letters, { limits: { letterMs: 20 } })
    const { status, headers, body } = await ask(api, ROUTE)
    expect([status, headers['retry-after'], body.type]).toEqual([503, '1', 'urn:tidemark:problem:log-unavailable'])
    expect(body.detail).toMatch(/^the log does not give the dead letters of partition 0 now: /)
  })

  it.each<[string, RegExp, (letters: MemoryLetters) => void]>([
    [
      'does not tell where it begins',
      /20 ms/,
      (letters) => {
        const { bounds } = letters
        letters.bounds = (partition, signal) => (partition === 2 ? new Promise(() => {}) : bounds(partition, signal))
      },
    ],
    ['cannot be read', /its disk is away/, failing(new RetryableError('LOG_UNAVAILABLE', 'its disk is away'))],
    ['is damaged', /the CRC does not fit/, failing(new LogCorruptedError('the CRC does not fit'))],
  ])('names the partition that %s, and the way to the others', async (_, why, spoil) => {
    const letters = new MemoryLetters(4)
    for (let partition = 0; partition < 4; partition++) letters.add(partition, { timestamp: partition })
    spoil(letters)
    const { api } = await over(letters, { limits: { letterMs: 20 } })
    const { status, headers, body } = await ask(api, ROUTE)
    expect([status, headers['retry-after'], body.type]).toEqual([503, '1', 'urn:tidemark:problem:log-unavailable'])
    expect(body.detail).toMatch(/^the log does not give the dead letters of partition 2 now: /)
    expect(body.detail).toMatch(why)
    expect(body.detail).toMatch(/; \?partition= lists the others one by one$/)
    const alone = await ask(api, `${ROUTE}?partition=2`)
    expect(alone.status).toBe(503)
    expect(alone.body.detail).toMatch(why)
    expect(alone.body.detail).not.toContain('?partition=')
    for (const other of [0, 1, 3]) expect(await offsets(`partition=${other}`)).toEqual([0])
  })

  it('asks no further where letters begin when the answer has been given', async () => {
    const letters = new MemoryLetters(2)
    const ended: Promise<void>[] = []
    letters.bounds = (partition, signal) => {
      ended.push(aborted(signal))
      const failure = new RetryableError('LOG_UNAVAILABLE', 'no broker')
      return partition === 0 ? new Promise(() => {}) : Promise.reject(failure)
    }
    const { api } = await over(letters)
    expect((await ask(api, ROUTE)).body.detail).toContain('partition 1')
    expect(ended).toHaveLength(2)
    await Promise.all(ended)
  })

  it('shows what it has when the time is over, and says so', async () => {
    const letters = new MemoryLetters(2)
    letters.add(0, { timestamp: 1 })
    letters.add(1, { timestamp: 2 })
    let asked = 0
    letters.before = (signal) => (++asked === 1 ? undefined : aborted(signal))
    const { api } = await over(letters, { limits: { letterMs: 50 } })
    const { status, body } = await ask(api, ROUTE)
    expect(status).toBe(200)
    expect(body).toMatchObject({ items: [{ partition: 0, offset: 0 }], complete: false })
    letters.before = () => undefined
    const rest = await ask(api, `${ROUTE}?cursor=${body.nextCursor}`)
    expect(rest.body).toEqual({ items: [expect.objectContaining({ partition: 1, offset: 0 })] })
  })
})
