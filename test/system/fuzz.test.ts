import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { connectAsync } from 'mqtt'
import { expect, it } from 'vitest'
import { Program } from '../../simulators/program.ts'
import { install, TOOL, VENV } from '../fuzz/tool.ts'
import { Stack } from './stack.ts'

const REPOSITORY = fileURLToPath(new URL('../..', import.meta.url))
const CONFIG = join(REPOSITORY, 'test/fuzz/schemathesis.toml')
/** For the run, which takes some ten seconds on two free cores. */
const WITHIN_MS = 300_000
/** Requests made up for each operation, beside the examples of the document and every edge of its parameters. */
const EXAMPLES = '50'
/** Those that the document's examples name, so that some requests meet devices that are there. */
const EXAMPLE_DEVICES = ['truck-17', 'truck-18']

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

/** Resolves when the log has what they report. */
async function reportAs(deviceIds: readonly string[], port: number): Promise<void> {
  const client = await connectAsync({ protocol: 'mqtt', host: '127.0.0.1', port })
  await Promise.all(
    deviceIds.map((id) =>
      client.publishAsync(`devices/${id}/telemetry`, '{"temperature":21.5,"battery":80}', { qos: 1 }),
    ),
  )
  await client.endAsync()
}

/** Answers that never end are not for a tool that waits for their end. */
function streams(paths: Record<string, { get?: { responses?: Record<string, { content?: object }> } }>): string[] {
  const isStream = (path: string) => 'text/event-stream' in (paths[path]?.get?.responses?.['200']?.content ?? {})
  return Object.keys(paths).filter(isStream)
}

it.skipIf(process.env.TIDEMARK_REQUIRE_PYTHON !== '1' && !(await hasPython()))(
  'no request that the document allows, or forbids, gets an answer that it does not name',
  async () => {
    await install()
    const env = { LOG_LEVEL: 'error', AUTH: 'jwt', AUTH_SECRET: randomBytes(32).toString('hex') }
    await using stack = await Stack.start({ env })
    const token = await issueToken(env)
    await reportAs(EXAMPLE_DEVICES, stack.mqttPort)
    const { paths } = await stack.json<{ paths: Parameters<typeof streams>[0] }>('/openapi.json')
    const args = [
      ['--config-file', CONFIG],
      [
        'run',
        `http://127.0.0.1:${stack.httpPort}/openapi.json`,
        '--no-color',
        '--seed',
        '1',
        '--max-examples',
        EXAMPLES,
        '--header',
        `Authorization: Bearer ${token}`,
      ],
      ['--phases', 'examples,coverage,fuzzing', '--request-timeout', '20'],
      ['--checks', 'not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance'],
      ...streams(paths).map((path) => ['--exclude-path', path]),
    ].flat()
    const { code, stdout } = await run(TOOL, args, { cwd: VENV, timeout: WITHIN_MS, maxBuffer: 64 * 1024 * 1024 }).then(
      ({ stdout: text }) => ({ code: 0, stdout: text }),
      (error: { code: number; stdout: string }) => error,
    )
    expect(code, stdout.slice(-10_000)).toBe(0)
    const operations = Object.values(paths).flatMap((methods) => Object.keys(methods)).length
    expect(stdout).toMatch(new RegExp(`Tested: ${operations - streams(paths).length}\\n`))
    expect(stack.program.stderr).toBe('')
  },
  2 * WITHIN_MS,
)
