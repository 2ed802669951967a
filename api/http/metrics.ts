import type { onRequestHookHandler } from 'fastify'
import { Gauge, type Metric, type MetricValueWithName, type Registry } from 'prom-client'
import type { Limiter } from '../../processor/runtime/limiter.ts'
import type { Api } from '../app.ts'
import type { UnsentAnswers } from './connections.ts'

const NAME = 'tidemark_http_request_duration_seconds'
const BUCKETS_SECONDS = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5]

/** Stands for the status of a request whose connection went before its answer ended. */
const ABORTED = 0

/** Requests of one method and route, and their outcomes by status. */
class Route {
  readonly #labels: { readonly method: string; readonly route: string }
  readonly #answers: (Durations | undefined)[] = []

  constructor(method: string, route: string) {
    this.#labels = { method, route }
  }

  observe(status: number, seconds: number): void {
    let durations = this.#answers[status]
    if (durations === undefined)
      this.#answers[status] = durations = { counts: BUCKETS_SECONDS.map(() => 0), sum: 0, all: 0 }
    durations.sum += seconds
    durations.all++
    for (let i = 0; i < BUCKETS_SECONDS.length; i++) {
      if (seconds > (BUCKETS_SECONDS[i] as number)) continue
      ;(durations.counts[i] as number)++
      return
    }
  }

  *values(): Generator<MetricValueWithName<string>> {
    for (const [status, durations] of this.#answers.entries()) {
      if (durations === undefined) continue
      const labels = { ...this.#labels, status: status === ABORTED ? 'aborted' : status }
      let count = 0
      for (const [i, le] of BUCKETS_SECONDS.entries()) {
        count += durations.counts[i] as number
        yield { labels: { le, ...labels }, value: count, metricName: `${NAME}_bucket` }
      }
      yield { labels: { le: '+Inf', ...labels }, value: durations.all, metricName: `${NAME}_bucket` }
      yield { labels, value: durations.sum, metricName: `${NAME}_sum` }
      yield { labels, value: durations.all, metricName: `${NAME}_count` }
    }
  }
}

interface Durations {
  /** By bucket; each bucket excludes the smaller ones. */
  readonly counts: number[]
  sum: number
  all: number
}

/**
 * Observes how long the requests of each route take, by method, route and status. prom-client's histogram looks its
 * labels up for each observation, which took a twentieth of a GET.
 */
export class RequestDurations {
  readonly name = NAME
  readonly type = 'histogram'
  readonly help =
    'Time from a request to the end of its answer; aborted: to the end of its connection, when that came first.'
  readonly aggregator = 'sum'
  readonly #routes: Route[] = []
  /** Requests without a route share one label, because clients choose their paths. */
  readonly #others = this.#route('any', 'none')
  readonly #hooks = new Set<unknown>()

  constructor(registry: Registry) {
    // A registry needs no more of a metric than this, though its types ask for one of prom-client's classes.
    registry.registerMetric(this as unknown as Metric)
  }

  /**
   * Adds a hook to each route: asking Fastify for a request's route costs more than the rest of the hook. Must be
   * called before hooks that may refuse requests.
   */
  observeRoutes(api: Api): void {
    api.addHook('onRoute', (route) => {
      // Fastify makes a HEAD route of its GET route, hooks included.
      const others = [route.onRequest ?? []].flat().filter((hook) => !this.#hooks.has(hook))
      route.onRequest = [this.#observer(this.#route(String(route.method), route.url)), ...others]
    })
  }

  observeOthers(api: Api): void {
    const hook = this.#observer(this.#others)
    api.addHook('onRequest', function (request, reply, done) {
      // Routes get this hook too, wherever it is added.
      if (request.is404) hook.call(this, request, reply, done)
      else done()
    })
  }

  get() {
    const { name, type, help, aggregator } = this
    const values = this.#routes.flatMap((route) => [...route.values()])
    return Promise.resolve({ name, type, help, aggregator, values })
  }

  #route(method: string, url: string): Route {
    const route = new Route(method, url)
    this.#routes.push(route)
    return route
  }

  #observer(route: Route): onRequestHookHandler {
    const hook: onRequestHookHandler = (request, { raw }, done) => {
      const began = performance.now()
      let status = ABORTED
      // Fastify's own hook uses this event and never runs when the client left before.
      raw.on('finish', () => {
        status = raw.statusCode
      })
      raw.on('close', () => {
        // A route that serves files may have no such file.
        const answered = request.is404 ? this.#others : route
        answered.observe(status, (performance.now() - began) / 1000)
      })
      done()
    }
    this.#hooks.add(hook)
    return hook
  }
}

/** Measures reads under way by kind, and unsent bytes of answers. */
export function measureReads(
  registry: Registry,
  limiters: Readonly<Record<string, Limiter>>,
  unsent: UnsentAnswers,
): void {
  const reads = new Gauge({
    name: 'tidemark_http_reads_in_flight',
    help: 'Reads of statuses, and of dead letters, under way.',
    labelNames: ['kind'] as const,
    registers: [],
    collect() {
      for (const [kind, limiter] of Object.entries(limiters)) this.set({ kind }, limiter.underWay)
    },
  })
  registry.registerMetric(reads)
  const bytes = new Gauge({
    name: 'tidemark_http_untaken_bytes',
    help: 'Bytes of answers that their clients have not taken.',
    registers: [],
    collect() {
      this.set(unsent.bytes)
    },
  })
  registry.registerMetric(bytes)
}
