import { beforeEach, expect, it } from 'vitest'
import { UnavailableError } from '../../../processor/contract/errors.ts'
import { Changelog } from './changelog.ts'
import { FakeClock, FakeSink, settled } from './client.ts'
import { ANYONE, EVERYTHING, streamsOver } from './stage.ts'

// Some clients (httpx-sse) give their callers every block, also one without data, which WHATWG HTML has as no event.

let log: Changelog
let clock: FakeClock
let streams: ReturnType<typeof streamsOver>
let blocks: string[]

beforeEach(() => {
  log = new Changelog(2)
  clock = new FakeClock()
  streams = streamsOver(log, clock)
  blocks = []
})

const open = (snapshot: boolean) =>
  streams.open(
    { subject: EVERYTHING, caller: ANYONE, snapshot, lastEventId: undefined },
    () => new FakeSink((block) => blocks.push(block)),
  )

const namesOf = () => blocks.map((block) => /^event: (\S+)\ndata: \{.*\}/m.exec(block)?.[1])

it('the time until a client connects again is in the first event, and quiet is told by events', async () => {
  await open(false)
  log.put('a', 1)
  await clock.pass(60_000)
  const names = namesOf()
  expect(names.slice(0, 3)).toEqual(['reset', 'enter', 'position'])
  expect(new Set(names.slice(2))).toEqual(new Set(['position']))
  expect(blocks[0]).toMatch(/^retry: 1000\nevent: reset\n/)
  for (const block of blocks.slice(2)) expect(block).toMatch(/^event: position\ndata: \{\}\nid: \S+$/)
})

it('a comment is no block of its own while a snapshot waits', async () => {
  const reader = {
    ...log.reader,
    listPartition: () => Promise.reject(new UnavailableError('PARTITION_UNAVAILABLE', 'nobody')),
  }
  streams = streamsOver(log, clock, { reader, limits: { heartbeatMs: 1_000 } })
  await open(true)
  await settled()
  await clock.pass(60_000)
  expect(namesOf()).toEqual(['reset', 'end'])
  expect(blocks[1]).toMatch(/^(:\n)+event: end\n/)
})
