import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { Registry } from 'prom-client'
import { afterEach, beforeEach, expect, it, vi } from 'vitest'
import { ApiServer } from '../../../api/server.ts'
import { Fleet } from '../fleet.ts'
import { noLetters, noWriter, routed, silent } from '../stage.ts'

const AT = '2026-11-24T10:00:00.000Z'
/** More, all together, than what the sockets in between take. */
const IDS = Array.from({ length: 32 }, (_, i) => `device-${i}`)
const STATUS_BYTES = 400_000

let server: ApiServer
const sockets: Socket[] = []

beforeEach(async () => {
  const fleet = new Fleet(4, ['a'])
  for (const id of IDS) fleet.put(id, { t: { value: '-'.repeat(STATUS_BYTES), at: AT } })
  server = await ApiServer.open({
    reader: routed(fleet),
    writer: noWriter,
    letters: noLetters,
    checks: async () => [],
    registry: new Registry(),
    logger: silent,
    limits: { maxUnsentBytes: 1024 * 1024 },
    host: '127.0.0.1',
    port: 0,
  })
})

afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy()
  await server[Symbol.asyncDispose]()
})

const list = 'GET /v1/devices?limit=1000 HTTP/1.1\r\nHost: x\r\n\r\n'
const body = JSON.stringify({ deviceIds: IDS })
const batch = `POST /v1/devices/batch-get HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`

async function ask(request: string): Promise<Socket> {
  const socket = connect(server.port, '127.0.0.1')
  socket.on('error', () => {})
  sockets.push(socket)
  await once(socket, 'connect')
  socket.pause().write(request)
  return socket
}

async function unsent(): Promise<number> {
  const text = await (await fetch(`${server.url}/metrics`)).text()
  return Number(/^tidemark_http_untaken_bytes (\d+)/m.exec(text)?.[1])
}

it.each([
  ['a list', list],
  ['a batch', batch],
])('counts %s that is not read, and refuses more until that has gone', async (_, request) => {
  const lazy = await ask(request)
  await vi.waitFor(async () => expect(await unsent()).toBeGreaterThan(IDS.length * STATUS_BYTES), 20_000)
  const asked = [
    fetch(`${server.url}/v1/devices?limit=1`),
    fetch(`${server.url}/v1/devices/batch-get`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ deviceIds: ['device-1'] }),
    }),
    fetch(`${server.url}/v1/devices/device-1`),
  ]
  for (const refused of await Promise.all(asked)) {
    expect([refused.status, refused.headers.get('retry-after')]).toEqual([503, '1'])
    expect(await refused.json()).toMatchObject({ type: 'urn:tidemark:problem:overloaded' })
  }
  expect((await fetch(`${server.url}/v1/devices/none`)).status).toBe(404)
  expect((await fetch(`${server.url}/v1/devices/count`)).status).toBe(200)
  lazy.destroy()
  await vi.waitFor(async () => expect(await unsent()).toBe(0), 20_000)
  const answered = await fetch(`${server.url}/v1/devices?limit=1`)
  expect(answered.status).toBe(200)
  await answered.text()
})

it('counts an answer that is read until it has left, on a connection that stays', async () => {
  const socket = await ask(list)
  await vi.waitFor(async () => expect(await unsent()).toBeGreaterThan(0), 20_000)
  socket.resume()
  await vi.waitFor(async () => expect(await unsent()).toBe(0), 20_000)
  expect(socket.destroyed).toBe(false)
})
