import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'
import { freePorts } from '../../simulators/program.ts'

const MODULE = new URL('../../simulators/program.ts', import.meta.url).href
/** Of 12,000 that can be chosen: without claims some would be chosen twice. */
const PORTS = 500

test('no two processes are given the same port, though nobody listens on it', async () => {
  const ours = await freePorts(PORTS)
  const code = `const { freePorts } = await import('${MODULE}'); console.log(JSON.stringify(await freePorts(${PORTS})))`
  const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', code])
  const theirs = JSON.parse(stdout) as number[]
  expect(new Set([...ours, ...theirs]).size).toBe(2 * PORTS)
})
