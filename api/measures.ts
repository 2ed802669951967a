import type { onResponseHookHandler } from 'fastify'
import { Gauge, Histogram, type Registry } from 'prom-client'
import type { Api } from './app.ts'
import type { Gate } from './gate.ts'
import type { UntakenAnswers } from './untaken.ts'

const BUCKETS_SECONDS = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5]

/** Observes how long each request of a route took, by method, route and status. */
export class RequestDurations {
  readonly #histogram: Histogram<'method' | 'route' | 'status'>

  constructor(registry: Registry) {
    this.#histogram = new Histogram({
      name: 'tidemark_http_request_duration_seconds',
      help: 'Time from a request to the end of its answer.',
      labelNames: ['method', 'route', 'status'],
      buckets: BUCKETS_SECONDS,
      registers: [registry],
    })
  }

  /** A hook for each route, as asking Fastify for the route of a request costs more than the rest of the hook. */
  observeRoutes(api: Api): void {
    api.addHook('onRoute', (route) => {
      route.onResponse = this.#hook(String(route.method), route.url)
    })
  }

  /** Requests that no route answers, as one: their paths are the client's to choose. */
  observeOthers(api: Api): void {
    const observe = this.#hook('any', 'none')
    api.addHook('onResponse', function (request, reply, done) {
      // Routes have this hook, too, wherever it is added.
      if (request.is404) observe.call(this, request, reply, done)
      else done()
    })
  }

  #hook(method: string, route: string): onResponseHookHandler {
    return (_request, reply, done) => {
      this.#histogram.observe({ method, route, status: reply.statusCode }, reply.elapsedTime / 1000)
      done()
    }
  }
}

/** The reads under way, by kind, and what of their answers waits. */
export function measureReads(registry: Registry, gates: Readonly<Record<string, Gate>>, untaken: UntakenAnswers): void {
  const reads = new Gauge({
    name: 'tidemark_http_reads_in_flight',
    help: 'Reads of statuses under way.',
    labelNames: ['kind'] as const,
    registers: [],
    collect() {
      for (const [kind, gate] of Object.entries(gates)) this.set({ kind }, gate.inFlight)
    },
  })
  registry.registerMetric(reads)
  const bytes = new Gauge({
    name: 'tidemark_http_untaken_bytes',
    help: 'Bytes of answers that their clients have not taken.',
    registers: [],
    collect() {
      this.set(untaken.bytes)
    },
  })
  registry.registerMetric(bytes)
}
