import { expect, it } from 'vitest'
import { MemoryLog } from './memory-log.ts'
import { said, Workbench } from './workbench.ts'

const IN_STATE = (state: string) => ({ from: `s\0${state}\0`, to: `s\0${state}\x01` })

it('a device that begins anew is found by what it is now, not by what another program wrote of it', async () => {
  const log = new MemoryLog()
  await using bench = await Workbench.open(log)
  const foreign = { connectivity: { state: 'online' }, lastSeenAt: '2026-11-24T10:00:00.000Z' }
  await log.claim().commit({ changelog: [said('a', foreign)], deadLetters: [], next: 0 })
  const { role } = await bench.task()
  await bench.settled()
  const { index } = role.store
  const found = (state: string) => index?.read([IN_STATE(state)], 10, false)
  expect([await found('online'), await found('unknown')]).toEqual([[['a']], [[]]])
  await log.append('telemetry', [said('a', { x: 1 })])
  await bench.settled()
  expect([await found('online'), await found('unknown')]).toEqual([[[]], [['a']]])
  expect([index?.counts.get('s', 'online'), index?.counts.get('s', 'unknown')]).toEqual([0, 1])
})
