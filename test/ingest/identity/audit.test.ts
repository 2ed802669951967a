import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it, vi } from 'vitest'
import { newSecret } from '../../../ingest/identity/passwords.ts'
import { removeFolder, temporaryFolder } from '../../../simulators/program.ts'
import { HeldLog, openIngest, pinged, RawClient, subscribe, WAIT } from '../fixture.ts'

let folder: string
beforeAll(async () => {
  folder = await temporaryFolder()
})
afterAll(() => removeFolder(folder))

it('tells who came, was refused, tried what it may not, and lost its credential, and never a password', async () => {
  const file = join(folder, 'passwords')
  const { secret, hash } = newSecret()
  await writeFile(file, `truck-1:${hash}\n`)
  const told: [string, Readonly<Record<string, unknown>>][] = []
  const environment = { MQTT_AUTH: 'password', MQTT_PASSWORDS: file }
  const { ingest } = await openIngest({ failedLoginMs: 1 }, new HeldLog(), Date.now, environment, (event, facts) =>
    told.push([event, facts]),
  )
  const client = await RawClient.open(ingest.port, {
    clientId: 'truck-1/a',
    username: 'truck-1',
    password: Buffer.from(secret),
  })
  await new RawClient(ingest.port).connect({ clientId: 'x', username: 'truck-1', password: Buffer.from('guessed') })
  client.publish('devices/truck-2/telemetry', '{}', 1, 1)
  await subscribe(client, { 'devices/#': 0 }, [128])
  await pinged(client)
  await writeFile(file, '')
  await vi.waitFor(() => expect(client.closed).toBe(true), WAIT)
  const who = { name: 'truck-1', client: 'truck-1/a', address: '127.0.0.1' }
  const credential = expect.stringMatching(/^password truck-1 [0-9a-f]{8}$/) as string
  expect(told).toEqual([
    ['connect', { ...who, credential }],
    ['refuse', { ...who, client: 'x', reason: 'the name or the password is wrong' }],
    ['deny', { ...who, credential, action: 'publish', topic: 'devices/truck-2/telemetry' }],
    ['deny', { ...who, credential, action: 'subscribe', topic: 'devices/#' }],
    ['revoke', { ...who, credential, reason: 'credential over' }],
  ])
  expect(JSON.stringify(told)).not.toMatch(new RegExp(`${secret}|guessed`))
})
