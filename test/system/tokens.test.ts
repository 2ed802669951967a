import { join } from 'node:path'
import { afterAll, beforeAll, expect, it, vi } from 'vitest'
import { Program, removeFolder, temporaryFolder } from '../../simulators/program.ts'
import { STARTED, Stack, timeFor } from './stack.ts'

let folder: string
beforeAll(async () => {
  folder = await temporaryFolder()
})
afterAll(() => removeFolder(folder))

async function token(...flags: string[]): Promise<string> {
  const program = Program.main(['token', ...flags])
  expect(await program.exited, program.stderr).toEqual({ code: 0, signal: null })
  return program.stdout.trimEnd()
}

const issue = (...flags: string[]) =>
  token('--key', join(folder, 'private.jwk'), '--subject', 'ops', '--scope', 'devices:read', ...flags)

it('is issued once, and good at every process that has the public key', timeFor(4), async () => {
  await token('--new-key', folder)
  const env = { AUTH: 'jwt', AUTH_JWKS: join(folder, 'jwks.json') }
  await using first = await Stack.start({ env })
  await using second = await Stack.start({ env })
  const stacks = [first, second]
  const mine = await issue('--devices', 'truck-')
  for (const stack of stacks) {
    const status = async (path: string, bearer?: string) =>
      (await stack.get(path, bearer === undefined ? {} : { headers: { authorization: `Bearer ${bearer}` } })).status
    // It is ready before it says so.
    await vi.waitFor(() => expect(stack.program.stdout).toContain('for bearers of a token'), STARTED)
    expect(await status('/v1/devices/truck-1', mine)).toBe(404)
    expect(await status('/v1/devices/van-1', mine)).toBe(403)
    expect(await status('/metrics', mine)).toBe(403)
    expect(await status('/v1/devices/truck-1')).toBe(401)
    expect(await status('/v1/devices/truck-1', `${mine}A`)).toBe(401)
    expect(await status('/livez')).toBe(200)
  }
})

it('tells how it is asked for', async () => {
  expect(await token('--help')).toMatch(/^usage: tidemark token --subject NAME/)
})

it('is refused with one clear message when a flag is wrong', async () => {
  const program = Program.main(['token', '--subject', 'ops', '--scope', 'all'])
  expect(await program.exited).toEqual({ code: 2, signal: null })
  expect(program.stderr).toMatch(/^tidemark: --scope "all": /)
  expect(program.stdout).toBe('')
})
