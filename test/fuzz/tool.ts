import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

const REPOSITORY = fileURLToPath(new URL('../..', import.meta.url))
const REQUIREMENTS = join(REPOSITORY, 'test/fuzz/requirements.txt')
/** A virtual environment, kept between runs; not part of the repository. */
export const VENV = join(REPOSITORY, 'node_modules/.cache/schemathesis')
export const TOOL = join(VENV, 'bin/schemathesis')
const WITHIN_MS = 300_000

const run = promisify(execFile)

/** Installs the fuzzer, unless it is there. */
export async function install(): Promise<void> {
  const timeout = WITHIN_MS
  if (!existsSync(TOOL)) await run('python3', ['-m', 'venv', '--clear', VENV], { timeout })
  const pip = ['install', '--quiet', '--disable-pip-version-check', '--requirement', REQUIREMENTS]
  await run(join(VENV, 'bin/pip'), pip, { timeout })
}

if (import.meta.main) await install()
