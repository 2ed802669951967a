import type { Registry } from 'prom-client'
import { Type } from 'typebox'
import { reasonOf } from '../../processor/contract/errors.ts'
import type { Api } from '../app.ts'
import { jsonAnswer, problemAnswers } from './documentation.ts'
import { ProblemError } from './problem.ts'

/** Longest time for the checks, ms. After it the process is not ready. */
export const CHECKS_WITHIN_MS = 2_000

/** `checks` names the problems that make the process not ready; empty when it is ready. */
export function healthRoutes(api: Api, checks: () => Promise<readonly string[]>, registry: Registry): void {
  api.get('/livez', { schema: LIVEZ, config: { scope: null } }, async () => ({ status: 'alive' }))

  api.get('/readyz', { schema: READYZ, config: { scope: null } }, async () => {
    const problems = await problemsWithin(checks)
    if (problems.length === 0) return { status: 'ready' }
    const errors = problems.map((message) => ({ field: 'readiness', message }))
    throw new ProblemError('not-ready', problems.join('; '), { errors }, { 'retry-after': '1' })
  })

  api.get('/metrics', { schema: METRICS, config: { scope: 'ops:read' } }, async (_request, reply) => {
    reply.header('content-type', registry.contentType)
    return registry.metrics()
  })
}

async function problemsWithin(checks: () => Promise<readonly string[]>): Promise<readonly string[]> {
  const { promise: late, resolve } = Promise.withResolvers<readonly string[]>()
  const timer = setTimeout(() => resolve([`the checks took longer than ${CHECKS_WITHIN_MS} ms`]), CHECKS_WITHIN_MS)
  try {
    return await Promise.race([checks(), late])
  } catch (error) {
    return [`a check failed: ${reasonOf(error)}`]
  } finally {
    clearTimeout(timer)
  }
}

const LIVEZ = {
  operationId: 'livez',
  summary: 'Whether the process runs',
  description: 'Answered for as long as the process answers anything, also while it is not ready.',
  response: {
    200: jsonAnswer('It runs.', Type.Object({ status: Type.Literal('alive') }), { status: 'alive' }),
    ...problemAnswers(),
  },
}

const READYZ = {
  operationId: 'readyz',
  summary: 'Whether the process should be sent requests',
  description:
    'Fails from the signal to stop on, while all else is still answered, and for as long as nothing can be read.',
  response: {
    200: jsonAnswer('It should.', Type.Object({ status: Type.Literal('ready') }), { status: 'ready' }),
    ...problemAnswers('not-ready'),
  },
}

const METRICS_TEXT = {
  schema: Type.String(),
  examples: {
    streams: {
      value: [
        '# HELP tidemark_changes_streams Streams of changes that are open.',
        '# TYPE tidemark_changes_streams gauge',
        'tidemark_changes_streams 12\n',
      ].join('\n'),
    },
  },
}

const METRICS = {
  operationId: 'metrics',
  summary: 'Metrics in the Prometheus text format',
  description: 'Of this process alone, and of all devices that it knows of.',
  response: {
    200: { description: 'All metrics of the process.', content: { 'text/plain': METRICS_TEXT } },
    ...problemAnswers(),
  },
}
