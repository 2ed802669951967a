import { partitionOf } from '../../../processor/contract/partition.ts'
import { formatPosition, type Offset, parsePosition } from '../../../processor/contract/record.ts'
import type { Answer, Completion, Freshness, History, Interval, Write } from './history.ts'

/** An API process, and those that come after it at its port. */
export interface Api {
  readonly port: number
  /** Processes that it had before. */
  life: number
}

export interface Asked {
  readonly method: 'PUT' | 'PATCH' | 'DELETE'
  readonly attributes: object
  readonly ifMatch: string | undefined
  readonly prefer: string | undefined
}

interface Reply extends Interval {
  /** 0: there was no answer. */
  readonly status: number
  readonly body: unknown
  readonly headers: Headers
  /** Of the connection, when there was no answer. */
  readonly failure: string | undefined
}

type Shown = { readonly deviceId: string; readonly freshness: Freshness; readonly found?: boolean }

/** A frozen process keeps all who ask it waiting until it goes on; one that stays away longer than this was left behind. */
const TIMEOUT_MS = 10_000
/** What is neither an answer nor one of these no client should ever see. */
const EXPECTED = [200, 202, 204, 404, 412, 503, 504]
const OUTCOMES: Readonly<Record<number, Completion>> = {
  200: { type: 'ok', outcome: 'applied' },
  202: { type: 'ok', outcome: undefined },
  204: { type: 'ok', outcome: 'applied' },
  404: { type: 'ok', outcome: 'unknown-device' },
  412: { type: 'ok', outcome: 'stale' },
}

/** Asks API processes, and writes down what was asked and answered. */
export class Asker {
  /** Requests without an answer of use. */
  failures = 0
  /** Reads that were answered, by API process. */
  readonly answered = new Map<Api, number>()
  readonly unexpected: string[] = []
  readonly #history: History
  readonly #partitions: number
  readonly #tags = new Map<string, string>()
  /** The last known position of each partition. */
  readonly #positions = new Map<number, Offset>()
  #tokens = 0

  constructor(history: History, partitions: number) {
    this.#history = history
    this.#partitions = partitions
  }

  /** What the device was at when it was last seen, as an ETag. */
  tagOf(deviceId: string): string | undefined {
    return this.#tags.get(deviceId)
  }

  /** Of the partition of the device, as far as anybody was told. */
  positionOf(deviceId: string): Offset | undefined {
    return this.#positions.get(partitionOf(deviceId, this.#partitions))
  }

  async get(api: Api, deviceId: string, atLeast?: Offset): Promise<void> {
    const partition = partitionOf(deviceId, this.#partitions)
    const query = atLeast === undefined ? '' : `?atLeast=${formatPosition({ partition, offset: atLeast })}`
    const reply = await this.#ask(api, 'GET', `/v1/devices/${deviceId}${query}`)
    if (!this.#isAnswer(api, reply, 200, 404)) return
    const tag = reply.headers.get('etag')
    if (tag !== null) this.#tags.set(deviceId, tag)
    const { freshness } = reply.body as Shown
    const text = reply.status === 200 ? textOf(reply.body) : undefined
    this.#history.reads.push({ ...intervalOf(reply), answers: [{ deviceId, text, freshness }], atLeast })
  }

  async batchGet(api: Api, deviceIds: readonly string[]): Promise<void> {
    const reply = await this.#ask(api, 'POST', '/v1/devices/batch-get', { deviceIds })
    if (!this.#isAnswer(api, reply, 200)) return
    const { results } = reply.body as { results: readonly Shown[] }
    // Of a partition that cannot be asked there is an error instead.
    const answers = results
      .filter(({ found }) => found !== undefined)
      .map((shown) => ({ ...answerIn(shown), text: shown.found === true ? textOf(shown) : undefined }))
    this.#history.reads.push({ ...intervalOf(reply), answers, atLeast: undefined })
  }

  /** What the list holds; undefined when there was none of use. */
  async list(api: Api, q: string | undefined, sort: string | undefined): Promise<readonly Answer[] | undefined> {
    const order = sort === undefined ? '' : `&sort=${sort}`
    const reply = await this.#ask(api, 'GET', `/v1/devices?limit=1000${asked(q)}${order}`)
    if (!this.#isAnswer(api, reply, 200)) return undefined
    const { items, complete = true } = reply.body as { items: readonly Shown[]; complete?: boolean }
    if (!complete) {
      this.failures++
      return undefined
    }
    const answers = items.map(answerIn)
    this.#history.lists.push({ ...intervalOf(reply), q, answers })
    return answers
  }

  async count(api: Api, q: string | undefined): Promise<void> {
    const reply = await this.#ask(api, 'GET', `/v1/devices/count?${asked(q)}`)
    if (!this.#isAnswer(api, reply, 200)) return
    const { count, complete, freshness } = reply.body as { count: number; complete: boolean; freshness: Freshness[] }
    if (complete) this.#history.counts.push({ ...intervalOf(reply), q, group: undefined, count, freshness })
    else this.failures++
  }

  /** Counts by state and team. */
  async summarize(api: Api, q: string | undefined): Promise<void> {
    const path = `/v1/fleet/summary?by=connectivity.state,attributes.team${asked(q)}`
    const reply = await this.#ask(api, 'GET', path)
    if (!this.#isAnswer(api, reply, 200)) return
    const { devices, groups, complete, freshness } = reply.body as {
      devices: number
      groups: readonly { by: Record<string, unknown>; count: number }[]
      complete: boolean
      freshness: Freshness[]
    }
    if (!complete) {
      this.failures++
      return
    }
    const interval = intervalOf(reply)
    const grouped = groups.reduce((sum, { count }) => sum + count, 0)
    if (grouped !== devices) this.unexpected.push(`${path}: ${devices} devices, ${grouped} in groups`)
    this.#history.counts.push({ ...interval, q, group: undefined, count: devices, freshness })
    for (const { by, count } of groups) {
      const group = { state: by['connectivity.state'], team: by['attributes.team'] ?? null }
      this.#history.counts.push({ ...interval, q, group, count, freshness })
    }
  }

  async write(api: Api, deviceId: string, { method, attributes, ifMatch, prefer }: Asked): Promise<Write> {
    const token = method === 'DELETE' ? undefined : `token-${++this.#tokens}`
    const headers = { ...(ifMatch && { 'if-match': ifMatch }), ...(prefer && { prefer }) }
    const path = `/v1/devices/${deviceId}${method === 'DELETE' ? '' : '/attributes'}`
    const reply = await this.#ask(api, method, path, token && { ...attributes, token }, headers)
    const position = parsePosition(reply.headers.get('tidemark-position') ?? '')
    const partition = partitionOf(deviceId, this.#partitions)
    if (position !== undefined) {
      if (position.partition !== partition) this.unexpected.push(`${method} ${deviceId}: ${formatPosition(position)}`)
      this.#positions.set(partition, Math.max(position.offset, this.#positions.get(partition) ?? 0))
    }
    const tag = reply.headers.get('etag')
    if (tag !== null) this.#tags.set(deviceId, tag)
    const completion = completionOf(reply, position !== undefined)
    if (completion.type !== 'ok') this.failures++
    const answer = reply.status === 200 ? answerIn(reply.body as Shown) : undefined
    const write = {
      ...intervalOf(reply),
      deviceId,
      partition,
      token,
      ifMatch,
      completion,
      offset: position?.offset,
      answer,
    }
    this.#history.writes.push(write)
    return write
  }

  #isAnswer(api: Api, { status }: Reply, ...statuses: readonly number[]): boolean {
    if (statuses.includes(status)) {
      this.answered.set(api, (this.answered.get(api) ?? 0) + 1)
      return true
    }
    this.failures++
    return false
  }

  async #ask(
    api: Api,
    method: string,
    path: string,
    body?: object | '',
    headers: Record<string, string> = {},
  ): Promise<Reply> {
    const { life } = api
    const init = body
      ? { body: JSON.stringify(body), headers: { ...headers, 'content-type': 'application/json' } }
      : { headers }
    const signal = AbortSignal.timeout(TIMEOUT_MS)
    const invoked = performance.now()
    const interval = () => {
      const by = api.life === life ? `${api.port}, process ${life}` : undefined
      return { invoked, completed: performance.now(), by }
    }
    try {
      const response = await fetch(`http://127.0.0.1:${api.port}${path}`, { method, ...init, signal })
      const text = await response.text()
      const { status } = response
      if (!EXPECTED.includes(status)) this.unexpected.push(`${method} ${path}: ${status} ${text}`)
      const json = text === '' ? undefined : (JSON.parse(text) as unknown)
      return { ...interval(), status, body: json, headers: response.headers, failure: undefined }
    } catch (error) {
      if (error instanceof SyntaxError) throw new Error(`${method} ${path} was answered with no JSON`, { cause: error })
      const { code } = ((error as Error).cause ?? {}) as NodeJS.ErrnoException
      return { ...interval(), status: 0, body: undefined, headers: new Headers(), failure: code ?? String(error) }
    }
  }
}

function completionOf({ status, failure }: Reply, isPlaced: boolean): Completion {
  // Nobody listened, so nobody was told.
  if (failure === 'ECONNREFUSED') return { type: 'fail' }
  // 504: it is in the log, and what it came to could not be learnt.
  return OUTCOMES[status] ?? (isPlaced ? { type: 'ok', outcome: undefined } : { type: 'info' })
}

function intervalOf({ invoked, completed, by }: Reply): Interval {
  return { invoked, completed, by }
}

function answerIn(shown: Shown): Answer {
  return { deviceId: shown.deviceId, text: textOf(shown), freshness: shown.freshness }
}

/** Of the status alone. */
function textOf(shown: unknown): string {
  const { freshness: _, found: __, ...status } = shown as Record<string, unknown>
  return JSON.stringify(status)
}

function asked(q: string | undefined): string {
  return q === undefined ? '' : `&q=${encodeURIComponent(q)}`
}
