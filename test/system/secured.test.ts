import { execFile } from 'node:child_process'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, expect, it, vi } from 'vitest'
import { newSecret } from '../../ingest/identity/passwords.ts'
import { Authority } from '../../simulators/authority.ts'
import { freePorts, Program, removeFolder, temporaryFolder } from '../../simulators/program.ts'
import { STARTED, Stack, timeFor } from './stack.ts'

const run = promisify(execFile)
const mosquitto = await run('mosquitto_pub', ['--help']).then(
  () => true,
  (error: NodeJS.ErrnoException) => error.code !== 'ENOENT',
)
const AUTH_SECRET = '0123456789abcdef0123456789abcdef'

let folder: string
beforeAll(async () => {
  folder = await temporaryFolder()
})
afterAll(() => removeFolder(folder))

/** The exit code of mosquitto_pub, a client that nobody here wrote. */
async function publish(port: number, deviceId: string, ...flags: string[]): Promise<number> {
  const message = ['-q', '1', '-t', `devices/${deviceId}/telemetry`, '-m', '{"temperature":21.5}']
  const failed = await run('mosquitto_pub', ['-h', 'localhost', '-p', String(port), ...message, ...flags]).then(
    () => undefined,
    (error: { code: number }) => error.code,
  )
  return failed ?? 0
}

it.skipIf(!mosquitto)(
  'real clients come in by certificate, password or token, and by nothing else; the audit log tells',
  timeFor(3),
  async () => {
    const authority = await Authority.create(join(folder, 'ca'))
    const server = await authority.issue('localhost')
    const device = await authority.issue('truck-1')
    const { secret, hash } = newSecret()
    const passwords = join(folder, 'passwords')
    await writeFile(passwords, `truck-2:${hash}\n`)
    const [tlsPort = 0] = await freePorts(1)
    const AUDIT_LOG = join(folder, 'audit.jsonl')
    const env = {
      MQTT_AUTH: 'tls,password,jwt',
      MQTT_TLS_PORT: String(tlsPort),
      MQTT_TLS_CERT: server.cert,
      MQTT_TLS_KEY: server.key,
      MQTT_TLS_CA: authority.ca,
      MQTT_PASSWORDS: passwords,
      AUTH_SECRET,
      AUDIT_LOG,
    }
    const issued = Program.main(['token', '--mqtt', '--subject', 'truck-3'], { AUTH_SECRET })
    expect(await issued.exited, issued.stderr).toEqual({ code: 0, signal: null })
    const token = issued.stdout.trimEnd()
    await using stack = await Stack.start({ env })
    await vi.waitFor(() => expect(stack.program.stdout).toContain(`:${tlsPort}`), STARTED)
    const tls = ['--cafile', authority.ca]

    expect(await publish(tlsPort, 'truck-1', ...tls, '--cert', device.cert, '--key', device.key, '-i', 'truck-1')).toBe(
      0,
    )
    expect(await publish(tlsPort, 'truck-2', ...tls, '-i', 'truck-2', '-u', 'truck-2', '-P', secret)).toBe(0)
    expect(await publish(stack.mqttPort, 'truck-3', '-i', 'truck-3', '-u', 'truck-3', '-P', token)).toBe(0)
    // Acknowledged, and put to the dead letters.
    expect(await publish(stack.mqttPort, 'truck-1', '-i', 'truck-2', '-u', 'truck-2', '-P', secret)).toBe(0)
    expect(await publish(stack.mqttPort, 'truck-4')).not.toBe(0)
    expect(await publish(tlsPort, 'truck-4', ...tls, '-i', 'truck-4')).not.toBe(0)
    expect(await publish(stack.mqttPort, 'truck-2', '-i', 'truck-2', '-u', 'truck-2', '-P', 'guessed')).not.toBe(0)

    const statusOf = async (deviceId: string) => (await stack.get(`/v1/devices/${deviceId}`)).status
    for (const deviceId of ['truck-1', 'truck-2', 'truck-3']) {
      await vi.waitFor(async () => expect(await statusOf(deviceId)).toBe(200), STARTED)
    }
    expect(await statusOf('truck-4')).toBe(404)
    const letters = (await (await stack.get('/v1/dead-letters')).json()) as { items: unknown[] }
    expect(letters).toMatchObject({ items: [{ reason: 'not-allowed' }] })
    await stack.program.stop()
    const lines = await readFile(AUDIT_LOG, 'utf8')
    const events = lines
      .trimEnd()
      .split('\n')
      .map((line) => (JSON.parse(line) as { audit: string }).audit)
    expect(events.sort()).toEqual(['connect', 'connect', 'connect', 'connect', 'deny', 'refuse', 'refuse', 'refuse'])
    expect(lines).not.toMatch(new RegExp(`${secret}|${token}|guessed`))
  },
)
