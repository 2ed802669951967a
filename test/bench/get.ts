import type { Result } from 'autocannon'
import autocannon from 'autocannon'
import { loadDeviceId } from '../../simulators/load/load-connection.ts'
import { seededRandom } from '../../simulators/random.ts'
import type { Stack } from '../system/stack.ts'
import { bareFastify } from './bare.ts'
import { type Figure, type Percentiles, percentiles } from './figure.ts'
import { warmHttpLoad } from './http-load.ts'
import { PREFIX } from './ingest.ts'
import { KeepAlive } from './keep-alive.ts'

const CONNECTIONS = 100
/** Different devices a connection asks for, in turn. */
const PATHS = 2_000
/** It makes every request of every connection ready before it begins. */
const AUTOCANNON_PATHS = 200
const PAGE = 100
/** So many times the pages that are timed go before: measured, their code is compiled after 1,500. */
const WARM_UP = 1.5

export interface GetSizes {
  /** Devices stored, as the load generator names them. */
  readonly devices: number
  readonly seconds: number
  /** Pages, and batches, one after the other. */
  readonly pages: number
}

export async function measureGet(stack: Stack, sizes: GetSizes): Promise<Figure[]> {
  const random = seededRandom(1, 0)
  const anyId = (): string => loadDeviceId(PREFIX, Math.floor(random() * sizes.devices))
  const paths = Array.from({ length: PATHS }, () => `/v1/devices/${anyId()}`)
  using http = new KeepAlive(stack.httpPort)
  const body = await http.send('GET', paths[0] as string)
  if (body.status !== 200) throw new Error(`GET ${paths[0]}: ${body.status} ${body.text}`)
  const { seconds } = sizes
  const product = await warmHttpLoad({ port: stack.httpPort, paths, seconds, connections: CONNECTIONS })
  const bare = await bareFastify(body.text, { paths, seconds, connections: CONNECTIONS })
  const second = await crossCheck(stack.httpPort, paths, seconds)
  const warm = async (time: (count: number) => Promise<Percentiles>): Promise<Percentiles> => {
    await time(sizes.pages * WARM_UP)
    return await time(sizes.pages)
  }
  const pages = await warm((count) => timePages(http, count))
  const batches = await warm((count) => timeBatches(http, count, anyId))
  return [
    {
      what: `get: one device of ${sizes.devices.toLocaleString('en-US')}, ${CONNECTIONS} connections`,
      value: product.perSecond,
      unit: 'req/s',
      limit: { atLeast: 45_000 },
      peer: { what: 'bare Fastify, same bytes', value: bare.perSecond },
      note: `${body.text.length} B`,
    },
    {
      what: 'get: one device, p99',
      value: product.ms.p99,
      unit: 'ms',
      limit: { atMost: 5 },
      peer: { what: 'bare Fastify', value: bare.ms.p99 },
      note: `p50 ${product.ms.p50.toFixed(2)} ms, max ${product.ms.max.toFixed(1)} ms`,
    },
    {
      what: 'get: the same as autocannon sees it',
      value: second.requests.average,
      unit: 'req/s',
      note: `p50 ${second.latency.p50} ms, p99 ${second.latency.p99} ms; it takes a core for itself`,
    },
    {
      what: `get: page of ${PAGE} devices, p99`,
      value: pages.p99,
      unit: 'ms',
      limit: { atMost: 10 },
      note: `p50 ${pages.p50.toFixed(2)} ms`,
    },
    {
      what: `get: batch-get of ${PAGE} devices, p99`,
      value: batches.p99,
      unit: 'ms',
      note: `p50 ${batches.p50.toFixed(2)} ms`,
    },
  ]
}

/** What autocannon sees, beside the generator of our own: it is slower, but nobody here wrote it. */
async function crossCheck(port: number, paths: readonly string[], duration: number): Promise<Result> {
  const requests = paths.slice(0, AUTOCANNON_PATHS).map((path) => ({ path }))
  const result = await autocannon({ url: `http://127.0.0.1:${port}`, connections: CONNECTIONS, duration, requests })
  const { errors, timeouts, non2xx } = result
  if (errors + timeouts + non2xx > 0)
    throw new Error(`GET: ${errors} errors, ${timeouts} timeouts, ${non2xx} answers that are not 2xx`)
  return result
}

/** Follows the cursors from the first page on; begins anew at the end. */
async function timePages(http: KeepAlive, count: number): Promise<Percentiles> {
  const samples: number[] = []
  let cursor: string | undefined
  for (let i = 0; i < count; i++) {
    const query = cursor === undefined ? '' : `&cursor=${cursor}`
    const { ms, text } = await timed(http, 'GET', `/v1/devices?limit=${PAGE}${query}`)
    const page = JSON.parse(text) as { items: unknown[]; nextCursor?: string }
    cursor = page.nextCursor
    if (page.items.length === PAGE) samples.push(ms)
  }
  return percentiles(samples)
}

async function timeBatches(http: KeepAlive, count: number, anyId: () => string): Promise<Percentiles> {
  const samples: number[] = []
  for (let i = 0; i < count; i++) {
    const body = JSON.stringify({ deviceIds: Array.from({ length: PAGE }, anyId) })
    const { ms, text } = await timed(http, 'POST', '/v1/devices/batch-get', body)
    const { results } = JSON.parse(text) as { results: { found?: boolean }[] }
    if (!results.every(({ found }) => found)) throw new Error('batch-get: a device is missing')
    samples.push(ms)
  }
  return percentiles(samples)
}

async function timed(
  http: KeepAlive,
  method: string,
  path: string,
  body?: string,
): Promise<{ ms: number; text: string }> {
  const start = performance.now()
  const { status, text } = await http.send(method, path, body)
  const ms = performance.now() - start
  if (status !== 200) throw new Error(`${method} ${path}: ${status} ${text}`)
  return { ms, text }
}
