import { spawnSync } from 'node:child_process'

const required = process.env.CI === 'true' || process.env.TIDEMARK_REQUIRE_KAFKA !== undefined

/** Whether tests that need `program` (Debian's package of it) run; in CI they always do, and fail without it. */
export function isThere(program: string): boolean {
  return required || spawnSync(program, ['-v']).error === undefined
}

/** What the program said, and how it ended. */
export function run(program: string, args: readonly string[], input = ''): { code: number | null; said: string } {
  const { status, stdout, stderr, error } = spawnSync(program, args, { input, encoding: 'utf8' })
  if (error !== undefined) throw error
  return { code: status, said: `${stdout}${stderr}` }
}
