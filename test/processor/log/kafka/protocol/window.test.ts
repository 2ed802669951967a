import { describe, expect, test } from 'vitest'
import { KafkaWindow, KafkaWindows } from '../../../../../processor/log/kafka/protocol/produce.ts'

const KIB = 1024
const MAX_BYTES = 8 * KIB * KIB
const FIRST_BYTES = 128 * KIB
const SLOW_MS = 1000
const QUICK_MS = 10

/** All that there is room for, sent at `bytesPerSecond`; gives how long it took, ms. */
function send(window: KafkaWindow, bytesPerSecond: number): number {
  const tookMs = (1000 * window.bytes) / bytesPerSecond
  window.took(window.bytes, tookMs, true)
  return tookMs
}

describe('how much is sent at once', () => {
  test('grows to the most, and not beyond, while it is taken in good time', () => {
    const window = new KafkaWindow(FIRST_BYTES, MAX_BYTES, SLOW_MS)
    const sizes = Array.from({ length: 20 }, () => {
      window.took(window.bytes, QUICK_MS, true)
      return window.bytes
    })
    expect(sizes).toEqual(sizes.toSorted((a, b) => a - b))
    expect(sizes[10]).toBe(MAX_BYTES)
    expect(sizes.at(-1)).toBe(MAX_BYTES)
  })

  test.each([50, 100, 500, 5_000])('follows a link of %d kB/s', (kilobytes) => {
    const window = new KafkaWindow(FIRST_BYTES, MAX_BYTES, SLOW_MS)
    const times = Array.from({ length: 200 }, () => send(window, kilobytes * 1000)).slice(20)
    expect(Math.max(...times)).toBeLessThan(2 * SLOW_MS)
    expect(times.reduce((sum, time) => sum + time, 0) / times.length).toBeGreaterThan(SLOW_MS / 4)
  })

  test('shrinks at once on a link that has become slow, and grows again', () => {
    const window = new KafkaWindow(FIRST_BYTES, MAX_BYTES, SLOW_MS)
    while (window.bytes < MAX_BYTES) send(window, 1e9)
    window.took(MAX_BYTES, 8 * SLOW_MS, true)
    expect(window.bytes).toBe(MAX_BYTES / 8 / 4)
    while (window.bytes < MAX_BYTES) send(window, 1e9)
  })

  test('does not grow by what did not fill it', () => {
    const window = new KafkaWindow(FIRST_BYTES, MAX_BYTES, SLOW_MS)
    const before = window.bytes
    for (let i = 0; i < 100; i++) window.took(KIB, QUICK_MS, false)
    expect(window.bytes).toBe(before)
  })

  test('grows again where brokers are slow, and not the link', () => {
    const window = new KafkaWindow(FIRST_BYTES, MAX_BYTES, SLOW_MS)
    const latencyMs = 1.8 * SLOW_MS
    const answer = () => window.took(window.bytes, latencyMs, true)
    const sizes = Array.from({ length: 3 }, () => {
      answer()
      return window.bytes
    })
    expect(Math.min(...sizes)).toBe(16 * KIB)
    for (let i = 0; i < 20; i++) answer()
    expect(window.bytes).toBe(MAX_BYTES)
    // Until the smallest are answered at once.
    for (let i = 0; i < 5; i++) window.took(KIB, QUICK_MS, false)
    answer()
    expect(window.bytes).toBeLessThan(MAX_BYTES)
  })

  test('is never so little that its size does not matter', () => {
    const window = new KafkaWindow(FIRST_BYTES, MAX_BYTES, SLOW_MS)
    window.took(10, 60 * SLOW_MS, false)
    expect(window.bytes).toBe(16 * KIB)
  })

  test('a broker that is slow does not learn from quick ones that it is the link', () => {
    const windows = new KafkaWindows(FIRST_BYTES, MAX_BYTES, SLOW_MS)
    for (let i = 0; i < 40; i++) {
      windows.of(1).took(KIB, QUICK_MS, false)
      windows.of(2).took(windows.of(2).bytes, 1.2 * SLOW_MS, true)
    }
    expect(windows.of(2).bytes).toBe(MAX_BYTES)
  })
})
