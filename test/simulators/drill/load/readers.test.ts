import { createServer, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { AFTERMATH_MS, Readers, type ReadersReport } from '../../../../simulators/drill/load/readers.ts'
import { Ledger } from '../../../../simulators/load/ledger.ts'
import { SEQ_START } from '../../../../simulators/load/load-connection.ts'

const AT = '2026-11-24T10:00:00.000Z'
const IDS = Array.from({ length: 40 }, (_, device) => `drill-${device}`)

function statusOf(deviceId: string) {
  return {
    deviceId,
    rev: 1,
    reported: { temperature: { value: 20, at: AT } },
    connectivity: { state: 'online', since: AT, reason: 'connected', session: 1 },
    firstSeenAt: AT,
    lastSeenAt: AT,
    counters: { messages: 1, late: 0, duplicates: 0, skewed: 0 },
    sequence: { seen: [[SEQ_START, SEQ_START]], session: 1 },
    freshness: { partition: 0, offset: 1, lag: 0, servedBy: 'owner' },
  }
}

// How long ago something was is what a test says, however long it takes.
beforeEach(() => void vi.useFakeTimers({ toFake: ['Date'] }))
afterEach(() => void vi.useRealTimers())

interface Circumstances {
  /** How long ago each device's message was acknowledged, ms. */
  readonly acknowledged?: number
  /** For how long nothing has been amiss, ms. */
  readonly lasted?: number
  readonly orphaned?: boolean
  /** How many they are, at least. */
  readonly reads?: number
}

/** What readers report of an API that gives one device's status so, when they have read it some times. */
async function reported(
  body: (id: string) => readonly [status: number, body: string],
  { acknowledged = 0, lasted = AFTERMATH_MS, orphaned = false, reads = 100 }: Circumstances = {},
): Promise<ReadersReport> {
  const answer: RequestListener = ({ url = '' }, response) => {
    const id = /^\/v1\/devices\/([^?]+)$/.exec(url)?.[1]
    const [status, text] = id === undefined ? [200, '{}'] : body(id)
    response.writeHead(status).end(text)
  }
  // A server that closes idle connections may do so just when one is asked again.
  const server = createServer({ keepAliveTimeout: 0 }, answer)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const ledger = new Ledger(IDS.length)
  ledger.last.fill(SEQ_START)
  ledger.firstAckAt.fill(Date.now() - acknowledged)
  ledger.lastAckAt.fill(Date.now() - acknowledged)
  const api = { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, headers: {} }
  const stability = { lasted, orphaned }
  const readers = new Readers({ api, ids: IDS, ledger, rate: 1_000, partitions: 1, random: Math.random, stability })
  const ending = new AbortController()
  const running = readers.run(ending.signal)
  await vi.waitFor(() => expect(readers.reads).toBeGreaterThan(reads), { timeout: 20_000 })
  ending.abort()
  await running
  server.close()
  return readers.report
}

const known = (id: string) => [200, JSON.stringify(statusOf(id))] as const
const unknown = () => [404, '{}'] as const
const fails = () => [500, 'x'] as const

test('a status of each device is no finding', async () => {
  expect(await reported(known)).toMatchObject({ failures: 0, wrongCount: 0, wentBackCount: 0, stale: { answers: 0 } })
})

test('a device may be unknown for a while after its first message is acknowledged, and while something is amiss', async () => {
  expect(await reported(unknown, { acknowledged: AFTERMATH_MS / 2 })).toMatchObject({ failures: 0 })
  expect(await reported(unknown, { acknowledged: 2 * AFTERMATH_MS, lasted: 0 })).toMatchObject({ failures: 0 })
})

test('a device that is unknown after that is a failed read', async () => {
  const { failures, failed } = await reported(unknown, { acknowledged: 2 * AFTERMATH_MS })
  expect(failures).toBeGreaterThan(80)
  expect(failed[0]).toMatch(/ \/v1\/devices\/drill-\d+: 404 \{\}$/)
})

test('a partition of which no status is given is silent to the end', async () => {
  const began = performance.now()
  const { longestGapMs } = await reported(unknown, { acknowledged: 2 * AFTERMATH_MS })
  expect(longestGapMs).toBeGreaterThan(0)
  expect(longestGapMs).toBeLessThanOrEqual(Math.ceil(performance.now() - began))
})

test('before there can be a status of a partition it is not silent', async () => {
  const DUE_AFTER = 500
  let asked = 0
  let firstAt = Infinity
  const starting = (id: string) => {
    if (++asked <= DUE_AFTER) return unknown()
    firstAt = Math.min(firstAt, performance.now())
    return known(id)
  }
  const { longestGapMs } = await reported(starting, { reads: DUE_AFTER + 100 })
  expect(longestGapMs).toBeLessThanOrEqual(Math.ceil(performance.now() - firstAt))
})

test('a failure is excused only while nobody can stand in', async () => {
  const alone = await reported(fails, { orphaned: true })
  expect(alone).toMatchObject({ excused: alone.failures, failed: [] })
  expect(alone.failures).toBeGreaterThan(80)
  expect(await reported(fails)).toMatchObject({ excused: 0, failed: expect.arrayContaining([expect.anything()]) })
})

test.each<[string, (id: string) => string, RegExp]>([
  ['the status of another', () => JSON.stringify(statusOf('drill-x')), /: the status of drill-x$/],
  ['no freshness', (id) => JSON.stringify({ ...statusOf(id), freshness: undefined }), /: no status: \{"deviceId"/],
  ['no JSON', () => '<html>', /: no status: <html>$/],
])('an answer with %s is wrong, and none of the device', async (_, body, told) => {
  const circumstances = { acknowledged: 2 * AFTERMATH_MS }
  const { failures, wrongCount, wrong, longestGapMs } = await reported((id) => [200, body(id)], circumstances)
  expect(failures).toBe(0)
  expect(wrongCount).toBeGreaterThan(80)
  expect(wrong[0]).toMatch(told)
  expect(longestGapMs).toBeGreaterThan(0)
})
