import { EventEmitter } from 'node:events'
import { expect, test } from 'vitest'
import { onStopSignals } from '../../../processor/runtime/stop.ts'

test('a signal that npm hands on is the one that came before it; a later one is a second', () => {
  const from = new EventEmitter()
  let now = 5_000
  const told: string[] = []
  onStopSignals({ first: (name) => told.push(name), again: () => told.push('again') }, from, () => now)
  from.emit('SIGINT')
  now += 5
  from.emit('SIGINT')
  expect(told).toEqual(['SIGINT'])
  now += 1_000
  from.emit('SIGTERM')
  expect(told).toEqual(['SIGINT', 'again'])
})
