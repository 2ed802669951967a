import * as fc from 'fast-check'
import { expect, it } from 'vitest'
import { Changelog, reportOf } from './changelog.ts'
import { Client, FakeClock, settled } from './client.ts'
import { follow, streamsOver } from './stage.ts'

const step = fc.oneof(
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('put' as const), x: fc.nat(9) }) },
  { weight: 2, arbitrary: fc.constant({ kind: 'delete' as const }) },
  { weight: 2, arbitrary: fc.constant({ kind: 'ask' as const }) },
  { weight: 2, arbitrary: fc.constant({ kind: 'pass' as const }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('connect' as const), slack: fc.nat(2) }) },
)

it('brings a client that asks for single devices, too, and ignores what is older, to hold what there is', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 20 }), async (steps) => {
      const log = new Changelog(1)
      const clock = new FakeClock()
      const client = new Client(clock)
      const streams = streamsOver(log, clock)
      let sink = await follow(streams, client)
      for (const each of steps) {
        if (each.kind === 'put') log.put('a', each.x)
        else if (each.kind === 'delete') log.put('a', undefined)
        else if (each.kind === 'pass') await clock.pass(300)
        else if (each.kind === 'connect') {
          sink.cut()
          log.slack = each.slack
          sink = await follow(streams, client)
        } else {
          const status = log.status('a')
          if (status !== undefined) client.learn(status)
        }
        await settled()
      }
      await clock.pass(300)
      const newest = Array.from(client.newest.values(), (status) => [status.deviceId, reportOf(status)] as const)
      expect(new Map(newest)).toEqual(log.devices())
      await streams.close()
    }),
    { numRuns: 500 },
  )
})
