import { EventEmitter } from 'node:events'
import type { ServerResponse } from 'node:http'
import { describe, expect, it } from 'vitest'
import { Bodies } from '../../../api/http/body.ts'

const KIB = 1024
const MIB = 1024 * KIB

const response = () => new EventEmitter() as ServerResponse

describe('Bodies', () => {
  it('uses a buffer again once its response has been handed over, and no sooner', () => {
    const bodies = new Bodies()
    const first = response()
    const one = bodies.take(70_000, first)
    const other = bodies.take(70_000, response())
    expect([one.length, other.length]).toEqual([70_000, 70_000])
    expect(other.buffer).not.toBe(one.buffer)
    first.emit('finish')
    expect(bodies.freeBytes).toBe(128 * KIB)
    const again = bodies.take(128 * KIB, response())
    expect([again.length, again.buffer === one.buffer, bodies.freeBytes]).toEqual([128 * KIB, true, 0])
  })

  it('leaves the buffer of a response that was cut short to the collector', () => {
    const bodies = new Bodies()
    const cut = response()
    bodies.take(1_000, cut)
    cut.emit('close')
    expect(bodies.freeBytes).toBe(0)
  })

  it('keeps no buffer that is larger than 1 MiB, and 16 MiB in all', () => {
    const bodies = new Bodies()
    const large = response()
    expect(bodies.take(3 * MIB, large)).toHaveLength(3 * MIB)
    large.emit('finish')
    expect(bodies.freeBytes).toBe(0)
    const responses = Array.from({ length: 40 }, response)
    for (const each of responses) bodies.take(MIB, each)
    for (const each of responses) each.emit('finish')
    expect(bodies.freeBytes).toBe(16 * MIB)
  })
})
