import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { expect, onTestFinished, test } from 'vitest'
import { answersAs, look } from '../../processor/log/kafka/group/peers.ts'

/** More than a connection may take. */
const FROZEN_MS = 700

/** A process that is `instance`; its address. */
async function listen(instance: string): Promise<string> {
  const server = createServer((_, response) => response.end(JSON.stringify({ instance })))
  onTestFinished(() => void server.close())
  await once(server.listen(0, '127.0.0.1'), 'listening')
  return `127.0.0.1:${(server.address() as AddressInfo).port}`
}

/** As a process that gets no processor does. */
function freeze(): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, FROZEN_MS)
}

test('who was frozen itself while it asked does not take the other for one that does not answer', async () => {
  const endpoint = await listen('a')
  const asked = [answersAs(endpoint, 'a'), look(endpoint, 'a')]
  freeze()
  expect(await Promise.all(asked)).toEqual([true, 'answers'])
})

test('who answers as another is not it, and where nobody listens a connection is refused', async () => {
  const endpoint = await listen('b')
  expect([await answersAs(endpoint, 'a'), await look(endpoint, 'a')]).toEqual([false, undefined])
  expect(await look('127.0.0.1:1', 'a')).toBe('refused')
})
