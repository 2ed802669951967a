import * as fc from 'fast-check'
import { pino } from 'pino'
import { Registry } from 'prom-client'
import { expect, it } from 'vitest'
import { ChangeStreams } from '../../../api/changes/streams.ts'
import { DEFAULT_CHANGES_LIMITS } from '../../../api/limits.ts'
import { Matcher } from '../../../processor/search/language/match.ts'
import { parseQuery } from '../../../processor/search/language/parser.ts'
import { Changelog } from './changelog.ts'
import { Client, FakeClock, type FakeSink, settled } from './client.ts'

const PARTITIONS = 2
const DEVICES = ['a', 'b', 'c', 'd', 'e']
const CALLER = {
  subject: undefined,
  scopes: new Set<never>(),
  prefixes: undefined,
  expiresAt: undefined,
  isTrusted: () => true,
}
const SUBJECTS = [
  { text: '', matcher: undefined },
  { text: 'x:>4', matcher: new Matcher(parseQuery('reported.x:>4')) },
  { deviceId: 'c' },
] as const

const step = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({ kind: fc.constant('put' as const), device: fc.constantFrom(...DEVICES), x: fc.nat(9) }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('delete' as const), device: fc.constantFrom(...DEVICES) }) },
  {
    weight: 4,
    arbitrary: fc.record({ kind: fc.constant('pass' as const), ms: fc.constantFrom(0, 100, 100, 260, 20_000) }),
  },
  {
    weight: 3,
    arbitrary: fc.record({ kind: fc.constant('connect' as const), process: fc.nat(1), stalled: fc.boolean() }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constantFrom('cut' as const, 'stall' as const, 'resume' as const, 'read' as const),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('gate' as const), process: fc.nat(1), closed: fc.boolean() }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('copy' as const), lag: fc.nat(4), slack: fc.nat(2) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('compact' as const) }) },
)

it('brings a client to hold what matches, whatever changes, breaks, stalls, lags, and wherever it resumes', async () => {
  await fc.assert(
    fc.asyncProperty(fc.constantFrom(...SUBJECTS), fc.array(step, { maxLength: 40 }), async (subject, steps) => {
      const log = new Changelog(PARTITIONS)
      const clock = new FakeClock()
      const client = new Client(clock)
      const gates = [{ closed: false }, { closed: false }]
      // So few recent changes are kept that streams must read older ones by themselves.
      const limits = {
        ...DEFAULT_CHANGES_LIMITS,
        recentRecords: 2,
        snapshotPage: 2,
        maxWaitingBytes: 1_100,
        maxDevices: 4,
      }
      const options = { reader: log.reader, clock, random: () => 0, limits, logger: pino({ level: 'silent' }) }
      const processes = gates.map(
        (gate) => new ChangeStreams({ ...options, feed: log.feed(gate), registry: new Registry() }),
      )
      let sink: FakeSink | undefined
      const connect = async (process: number, stalled = false): Promise<void> => {
        sink?.cut()
        const opened = client.connect()
        opened.stalled = stalled
        sink = opened
        const request = { subject, caller: CALLER, snapshot: true, lastEventId: client.lastEventId }
        await processes[process]?.open(request, () => opened)
      }
      await connect(0)
      for (const each of steps) {
        if (each.kind === 'put') log.put(each.device, each.x)
        else if (each.kind === 'delete') log.put(each.device, undefined)
        else if (each.kind === 'pass') await clock.pass(each.ms)
        else if (each.kind === 'connect') await connect(each.process, each.stalled)
        else if (each.kind === 'gate') Object.assign(gates[each.process] as object, { closed: each.closed })
        else if (each.kind === 'copy') Object.assign(log, { lag: each.lag, slack: each.slack })
        else if (each.kind === 'compact') log.compact()
        else if (each.kind === 'stall' && sink !== undefined) sink.stalled = true
        else if (each.kind === 'resume') sink?.resume()
        else if (each.kind === 'read') sink?.read()
        else if (each.kind === 'cut') {
          sink?.cut()
          sink = undefined
        }
        log.wake()
        await settled()
      }
      for (const gate of gates) gate.closed = false
      log.wake()
      // At times the stream that is open has to do it, at times one that resumes.
      if (steps.length % 2 === 0) await connect(0)
      for (let i = 0; i < 4; i++) {
        if (sink === undefined || sink.ended) await connect(i % 2)
        sink?.resume()
        await clock.pass(2_000)
      }
      const wanted = [...log.devices()].filter(([deviceId, x]) =>
        'deviceId' in subject ? deviceId === subject.deviceId : subject.matcher === undefined || x > 4,
      )
      expect(client.devices).toEqual(new Map(wanted))
      await Promise.all(processes.map((each) => each.close()))
    }),
    { numRuns: 500 },
  )
})
