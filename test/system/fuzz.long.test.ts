import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { connectAsync } from 'mqtt'
import { describe, expect, test, vi } from 'vitest'
import { pause } from '../../processor/runtime/pause.ts'
import { Program } from '../../simulators/program.ts'
import { statusesOf } from '../fuzz/report.ts'
import { install, TOOL, VENV } from '../fuzz/tool.ts'
import { Stack } from './stack.ts'

const REPOSITORY = fileURLToPath(new URL('../..', import.meta.url))
const CONFIG = join(REPOSITORY, 'test/fuzz/schemathesis.toml')
/** For the run, which takes some fifteen seconds on two free cores. */
const WITHIN_MS = 300_000
/** Requests made up for each operation, beside the examples of the document and every edge of its parameters. */
const EXAMPLES = '50'
/** Those that the document's examples name, so that some requests meet devices that are there. */
const EXAMPLE_DEVICES = ['truck-17', 'truck-18']
/** Between two reports of each, ms. */
const REPORT_MS = 20
const CHECKS = [
  'not_a_server_error',
  'status_code_conformance',
  'content_type_conformance',
  'response_headers_conformance',
  'response_schema_conformance',
  'negative_data_rejection',
  'missing_required_header',
  'unsupported_method',
  'ignored_auth',
]

const run = promisify(execFile)

async function hasPython(): Promise<boolean> {
  try {
    await run('python3', ['-c', 'import ensurepip, sys; sys.exit(sys.version_info < (3, 10))'])
    return true
  } catch {
    return false
  }
}

async function issueToken(env: Record<string, string>): Promise<string> {
  const scope = 'devices:read devices:write ops:read'
  const program = Program.main(['token', '--subject', 'fuzzer', '--scope', scope], env)
  expect(await program.exited, program.stderr).toEqual({ code: 0, signal: null })
  return program.stdout.trimEnd()
}

/** Devices report for as long as `act` takes: the fuzzer deletes devices too, and would meet none after that. */
async function whileReporting<T>(deviceIds: readonly string[], port: number, act: () => Promise<T>): Promise<T> {
  const client = await connectAsync({ protocol: 'mqtt', host: '127.0.0.1', port })
  const report = (id: string) =>
    client.publishAsync(`devices/${id}/telemetry`, '{"temperature":21.5,"battery":80}', { qos: 1 })
  const over = new AbortController()
  const reporting = (async () => {
    for (; !over.signal.aborted; await pause(REPORT_MS)) await Promise.all(deviceIds.map(report))
  })()
  try {
    return await act()
  } finally {
    over.abort()
    await reporting
    await client.endAsync()
  }
}

/** Answers that never end are not for a tool that waits for their end. */
function streams(paths: Record<string, { get?: { responses?: Record<string, { content?: object }> } }>): string[] {
  const isStream = (path: string) => 'text/event-stream' in (paths[path]?.get?.responses?.['200']?.content ?? {})
  return Object.keys(paths).filter(isStream)
}

describe.skipIf(process.env.TIDEMARK_REQUIRE_PYTHON !== '1' && !(await hasPython()))('fuzzed', () => {
  test.each([
    ['jwt', '1'],
    ['none', '2'],
  ])(
    'with AUTH=%s: no request that the document allows, or forbids, gets an answer that it does not name',
    async (auth, seed) => {
      await install()
      const secret = { AUTH: 'jwt', AUTH_SECRET: randomBytes(32).toString('hex') }
      const env = { LOG_LEVEL: 'error', ...(auth === 'jwt' ? secret : { AUTH: 'none' }) }
      await using stack = await Stack.start({ env })
      // In this spelling: to leave it out, the fuzzer looks for no other.
      const headers: Record<string, string> = auth === 'jwt' ? { Authorization: `Bearer ${await issueToken(env)}` } : {}
      const { paths } = await stack.json<{ paths: Parameters<typeof streams>[0] }>('/openapi.json')
      const report = join(stack.dataDir, 'fuzz.ndjson')
      const args = [
        ['--config-file', CONFIG, 'run', `http://127.0.0.1:${stack.httpPort}/openapi.json`, '--no-color'],
        ['--seed', seed, '--max-examples', EXAMPLES],
        ['--phases', 'examples,coverage,fuzzing', '--request-timeout', '20'],
        ['--checks', CHECKS.join(','), '--report', 'ndjson', '--report-ndjson-path', report],
        ...Object.entries(headers).map(([name, value]) => ['--header', `${name}: ${value}`]),
        ...streams(paths).map((path) => ['--exclude-path', path]),
      ].flat()
      const options = { cwd: VENV, timeout: WITHIN_MS, maxBuffer: 64 * 1024 * 1024 }
      const { code, stdout } = await whileReporting(EXAMPLE_DEVICES, stack.mqttPort, async () => {
        // Some examples of the document are tried once, and before all else.
        await vi.waitFor(async () => {
          for (const id of EXAMPLE_DEVICES) await stack.json(`/v1/devices/${id}`, { headers })
        })
        return run(TOOL, args, options).then(
          ({ stdout: text }) => ({ code: 0, stdout: text }),
          (error: { code: number; stdout: string }) => error,
        )
      })
      expect(code, stdout.slice(-10_000)).toBe(0)
      const operations = Object.entries(paths)
        .filter(([path]) => !streams(paths).includes(path))
        .flatMap(([path, methods]) => Object.keys(methods).map((method) => `${method.toUpperCase()} ${path}`))
      expect(stdout).toMatch(new RegExp(`Tested: ${operations.length}\\n`))
      const statuses = await statusesOf(report)
      const refused = operations.filter(
        (operation) => ![200, 202, 204].some((status) => statuses.get(operation)?.has(status)),
      )
      expect(refused, 'of which nothing but refusals was seen').toEqual([])
      expect(statuses.get('GET /v1/devices/{deviceId}')).toContain(304)
      expect(stack.program.stderr).toBe('')
    },
    2 * WITHIN_MS,
  )
})
