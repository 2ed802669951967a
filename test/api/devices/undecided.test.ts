import { describe, expect, it, vi } from 'vitest'
import { RetryableError } from '../../../processor/contract/errors.ts'
import { partitionOf } from '../../../processor/contract/partition.ts'
import type { DeviceWriter } from '../../../processor/contract/query.ts'
import type { Outcome } from '../../../processor/contract/write.ts'
import { ask } from '../conformance.ts'
import { stage } from '../stage.ts'
import { remove, send, unknown, WAIT } from './writes.ts'

describe('what cannot be known or done now', () => {
  const PARTITION = partitionOf('truck-17', 4)
  /** A fleet of one device, whose copies are at offset 7, and a log that gives the next position. */
  async function on(outcome?: Outcome, writer?: DeviceWriter) {
    const position = { partition: PARTITION, offset: outcome === undefined ? 7 : 6 }
    const setting = await stage({ writer: writer ?? { write: async () => position } })
    setting.fleet.put('truck-17')
    setting.fleet.assign(PARTITION, 'a')
    if (outcome !== undefined) setting.fleet.member('a').outcomes.set(6, outcome)
    return { ...setting, at: `${PARTITION}-${position.offset}` }
  }

  it('a position that is not reached is 503 with Retry-After', async () => {
    const { api } = await on()
    const read = await ask(api, `/v1/devices/truck-17?atLeast=${PARTITION}-6`)
    expect(read.status).toBe(200)
    const { status, headers, body } = await ask(api, `/v1/devices/truck-17?atLeast=${PARTITION}-7`)
    expect([status, body.title, headers['retry-after']]).toEqual([503, 'Position not reached', '1'])
  })

  it('a condition that is not decided in time is 504 with the position, any other write 202', async () => {
    const { api, at } = await on()
    const wait = { prefer: 'wait=0' }
    const { status, body } = await send(api, 'PUT', 'truck-17', {}, { ...wait, 'if-match': '"1"' })
    expect([status, body.title, body.position]).toEqual([504, 'Outcome unknown', at])
    const deletion = await remove(api, 'truck-17', { ...wait, 'if-match': '"1"' })
    expect([deletion.status, deletion.body.position]).toEqual([504, at])
    expect((await send(api, 'PUT', 'truck-17', {}, wait)).body.position).toBe(at)
    expect((await remove(api, 'truck-17', wait)).status).toBe(202)
  })

  it.each<[Outcome, number, string]>([
    ['attributes-too-large', 413, 'the attributes would take more than 8192 bytes'],
    ['status-too-large', 413, 'the status would take more than 524288 bytes'],
    ['unknown-device', 404, unknown('truck-17')],
    [
      'stale',
      412,
      'device truck-17 was at another version than If-Match asks for, and is at W/"1-2026-11-24T10:00:00.000Z" by now',
    ],
  ])('what was decided is told: %s', async (outcome, expected, detail) => {
    const { api, at } = await on(outcome)
    const { status, body } = await send(api, 'PATCH', 'truck-17', {}, WAIT)
    expect([status, body.detail, body.position]).toEqual([expected, detail, at])
    if (expected === 413)
      expect(body.errors).toEqual([{ field: 'body', message: `would make ${detail.replace('would ', '')}` }])
  })

  it('a log that takes nothing is 503', async () => {
    const unavailable = new RetryableError('LOG_UNAVAILABLE', 'no broker')
    const { api } = await on(undefined, { write: () => Promise.reject(unavailable) })
    for (const answer of [await send(api, 'PUT', 'truck-17', {}), await remove(api, 'truck-17')]) {
      expect([answer.status, answer.body.title, answer.headers['retry-after']]).toEqual([503, 'Log unavailable', '1'])
      expect(answer.body.detail).toContain('no broker')
    }
  })

  it('a partition that nobody answers for takes no write of a device that may be unknown', async () => {
    const { api, fleet } = await on()
    fleet.assign(PARTITION, undefined)
    expect((await send(api, 'PUT', 'truck-17', {})).body.title).toBe('Partition unavailable')
  })

  it('too many writes under way are 503', async () => {
    const { promise, resolve } = Promise.withResolvers<void>()
    const position = { partition: PARTITION, offset: 6 }
    let held = 0
    const write = async () => {
      held++
      await promise
      return position
    }
    const { api, fleet } = await stage({ writer: { write }, limits: { maxWrites: 2 } })
    fleet.put('truck-17')
    const puts = [send(api, 'PUT', 'truck-17', {}), send(api, 'PUT', 'truck-17', {})]
    await vi.waitFor(() => expect(held).toBe(2))
    const { status, body } = await remove(api, 'truck-17')
    expect([status, body.title]).toEqual([503, 'Overloaded'])
    resolve()
    expect((await Promise.all(puts)).map((answer) => answer.status)).toEqual([202, 202])
  })
})
