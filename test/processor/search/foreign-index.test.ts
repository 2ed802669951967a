import { expect, it } from 'vitest'
import { parseQuery } from '../../../processor/search/language/parser.ts'
import { MemoryLog } from '../memory-log.ts'
import { said, Workbench } from '../workbench.ts'

const IN_STATE = (state: string) => ({ from: `s\0${state}\0`, to: `s\0${state}\x01` })

it('a device that begins anew is found by what it is now, not by what another program wrote of it', async () => {
  const log = new MemoryLog()
  await using bench = await Workbench.open(log)
  const foreign = { deviceId: 'a', connectivity: { state: 'online' }, lastSeenAt: '2026-11-24T10:00:00.000Z' }
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

it.each([
  ['{"deviceId":"a","rev":7,"connectivity":{"state":"online"},"lastSeenAt":"2026-11-24T10:00:00.000Z","x":'],
  ['{"deviceId":"b","rev":7,"connectivity":{"state":"online"},"lastSeenAt":"2026-11-24T10:00:00.000Z","x":{}}'],
])('nothing is indexed of what readers are not shown: %s', async (text) => {
  const log = new MemoryLog()
  await using bench = await Workbench.open(log)
  await log.claim().commit({ changelog: [said('a', text)], deadLetters: [], next: 0 })
  const { role } = await bench.task()
  await bench.settled()
  const { index } = role.store
  expect(await index?.read([IN_STATE('online')], 10, false)).toEqual([[]])
  expect(index?.counts.get('s', 'online')).toBe(0)
  const question = { partition: 0, query: parseQuery('connectivity.state:online'), within: undefined, from: undefined }
  const { summary } = await bench.reader.summarize({ ...question, by: [], metrics: [] })
  expect(summary.devices).toBe(0)
})
