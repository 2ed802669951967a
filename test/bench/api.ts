import { loadDeviceId } from '../../simulators/load/load-connection.ts'
import { seededRandom } from '../../simulators/random.ts'
import { Stack } from '../system/stack.ts'
import { bareFastify } from './bare.ts'
import type { BenchOptions } from './bench.ts'
import { type Figure, percentiles } from './figure.ts'
import { type HttpLoad, type HttpLoadReport, httpLoad } from './http-load.ts'
import { loadDevices, PREFIX } from './ingest.ts'
import { KeepAlive } from './keep-alive.ts'
import { measureLive } from './live.ts'
import { measureQueries } from './queries.ts'
import { RedisPeer, redisVersion } from './redis.ts'

export const API_PARTS = ['single', 'batch', 'live', 'queries']

const GET_CONNECTIONS = 100
const BATCH_CONNECTIONS = 16
const BATCH_GET = '/v1/devices/batch-get'
/** Devices in one batch. */
const BATCH = 100
/** Different requests, asked in turn. */
const REQUESTS = 2_000
/** Product and peer are measured in turn, so that what else the machine does falls on both. */
const ROUNDS = 3

const FULL = { devices: 100_000, seconds: 5 }
const QUICK = { devices: 10_000, seconds: 1 }
const FULL_QUERIES = { devices: 1_000_000, seconds: 5, costDevices: 20_000 }
const QUICK_QUERIES = { devices: 20_000, seconds: 1, costDevices: 5_000 }

/** Parts that have Redis for a peer. */
const PEER_PARTS = ['single', 'batch']

export async function apiVersions(parts: ReadonlySet<string>): Promise<Readonly<Record<string, string>>> {
  return PEER_PARTS.some((part) => parts.has(part)) ? { redis: redisVersion() } : {}
}

/** Reads of one process with all roles, on the embedded log, beside Fastify that reads the same documents from Redis. */
export async function measureApi({ parts, quick, env, report }: BenchOptions): Promise<void> {
  const { devices, seconds } = quick ? QUICK : FULL
  if (parts.has('queries')) await measureQueries(quick ? QUICK_QUERIES : FULL_QUERIES, { env, report })
  if (!API_PARTS.some((part) => part !== 'queries' && parts.has(part))) return
  await using stack = await Stack.start({ env })
  if (parts.has('live')) report(await measureLive(stack, quick ? 2 : 10))
  if (!PEER_PARTS.some((part) => parts.has(part))) return
  await loadDevices(stack, devices)
  await using peer = await RedisPeer.start(await documentsOf(stack, devices))
  const random = seededRandom(1, 0)
  const anyId = (): string => loadDeviceId(PREFIX, Math.floor(random() * devices))
  const ports = { product: stack.httpPort, peer: peer.port }
  if (parts.has('single')) report(await measureSingle(ports, seconds, anyId))
  if (parts.has('batch')) report(await measureBatch(ports, seconds, anyId))
  await stack.stop()
}

interface Ports {
  readonly product: number
  readonly peer: number
}

async function measureSingle(ports: Ports, seconds: number, anyId: () => string): Promise<Figure[]> {
  const paths = Array.from({ length: REQUESTS }, () => `/v1/devices/${anyId()}`)
  const { product, peer, ratio } = await inTurn(ports, { paths, seconds, connections: GET_CONNECTIONS })
  return [
    {
      what: `single: GET of one device, ${GET_CONNECTIONS} connections`,
      value: product.perSecond,
      unit: 'req/s',
      peer: { what: 'Fastify and one Redis GET', value: peer.perSecond },
      note: `p99 ${product.p99.toFixed(1)} ms; the peer: ${peer.p99.toFixed(1)} ms`,
    },
    { what: 'single: of the peer', value: ratio, unit: 'times', limit: { atLeast: 1 }, note: MEDIAN },
  ]
}

async function measureBatch(ports: Ports, seconds: number, anyId: () => string): Promise<Figure[]> {
  const bodies = Array.from({ length: REQUESTS }, () =>
    JSON.stringify({ deviceIds: Array.from({ length: BATCH }, anyId) }),
  )
  const load = { paths: [BATCH_GET], bodies, seconds, connections: BATCH_CONNECTIONS }
  const { product, peer, ratio } = await inTurn(ports, load)
  using http = new KeepAlive(ports.product)
  const bare = await bareFastify((await http.send('POST', BATCH_GET, bodies[0])).text, load)
  return [
    {
      what: `batch: batch-get of ${BATCH}, ${BATCH_CONNECTIONS} connections`,
      value: product.perSecond * BATCH,
      unit: 'devices/s',
      peer: { what: 'Fastify and one Redis MGET', value: peer.perSecond * BATCH },
      note: `p99 ${product.p99.toFixed(1)} ms; the peer: ${peer.p99.toFixed(1)} ms`,
    },
    { what: 'batch: of the peer', value: ratio, unit: 'times', limit: { atLeast: 3 }, note: MEDIAN },
    {
      what: 'batch: bare Fastify that sends one such answer for all, of the peer',
      value: bare.perSecond / peer.perSecond,
      unit: 'times',
    },
  ]
}

const MEDIAN = `median of ${ROUNDS} rounds, product and peer in turn`

interface Measured {
  readonly perSecond: number
  readonly p99: number
}

function median(values: readonly number[]): number {
  return percentiles(values).p50
}

/** Medians over the rounds; `ratio`: that of product to peer within a round. */
async function inTurn(
  ports: Ports,
  load: Omit<HttpLoad, 'port'>,
): Promise<{ product: Measured; peer: Measured; ratio: number }> {
  const products: HttpLoadReport[] = []
  const peers: HttpLoadReport[] = []
  for (let round = 0; round < ROUNDS; round++) {
    products.push(await httpLoad({ ...load, port: ports.product }))
    peers.push(await httpLoad({ ...load, port: ports.peer }))
  }
  const measured = (reports: readonly HttpLoadReport[]): Measured => ({
    perSecond: median(reports.map(({ perSecond }) => perSecond)),
    p99: median(reports.map(({ ms }) => ms.p99)),
  })
  const ratios = products.map(({ perSecond }, i) => perSecond / (peers[i] as HttpLoadReport).perSecond)
  return { product: measured(products), peer: measured(peers), ratio: median(ratios) }
}

/** What the product answers for each device. */
async function documentsOf(stack: Stack, devices: number): Promise<Map<string, string>> {
  const documents = new Map<string, string>()
  using http = new KeepAlive(stack.httpPort)
  let cursor: string | undefined
  do {
    const after = cursor === undefined ? '' : `&cursor=${cursor}`
    const page: { items: { deviceId: string }[]; nextCursor?: string } = await http.json(
      'GET',
      `/v1/devices?limit=1000${after}`,
    )
    for (const item of page.items) documents.set(item.deviceId, JSON.stringify(item))
    cursor = page.nextCursor
  } while (cursor !== undefined)
  if (documents.size !== devices) throw new Error(`${documents.size} of ${devices} devices are listed`)
  return documents
}
