import { beforeEach, expect, it } from 'vitest'
import type { ChangeStreams } from '../../../api/changes/streams.ts'
import type { Status } from '../../../processor/contract/status.ts'
import { Matcher } from '../../../processor/search/language/match.ts'
import { parseQuery } from '../../../processor/search/language/parser.ts'
import { Changelog } from './changelog.ts'
import { Client, FakeClock, settled } from './client.ts'
import { follow, streamsOver } from './stage.ts'

const HARD = `reported.padding:*${'-'.repeat(100)}?${'-'.repeat(100)}x*`
const DEVICES = 100

/** Notes in which turns of the event loop it is asked. */
class WatchedMatcher extends Matcher {
  readonly turns = new Map<number, number>()
  #turn = 0
  #counting: NodeJS.Immediate | undefined

  override matches(status: Status): boolean {
    this.turns.set(this.#turn, (this.turns.get(this.#turn) ?? 0) + 1)
    return super.matches(status)
  }

  watch(): void {
    this.turns.clear()
    const count = (): void => {
      this.#turn++
      this.#counting = setImmediate(count)
    }
    count()
  }

  [Symbol.dispose](): void {
    clearImmediate(this.#counting)
  }
}

let log: Changelog
let clock: FakeClock
let streams: ChangeStreams

beforeEach(() => {
  log = new Changelog(1)
  log.padding = 4000
  clock = new FakeClock()
  streams = streamsOver(log, clock)
})

function hardMatcher(): WatchedMatcher {
  return new WatchedMatcher(parseQuery(Array(8).fill(HARD).join(' OR ')))
}

it('gives others their turn while a query takes its time, as changes come', async () => {
  using matcher = hardMatcher()
  const client = new Client(clock)
  await follow(streams, client, { subject: { text: 'hard', matcher } })
  await settled()
  matcher.watch()
  for (let i = 0; i < DEVICES; i++) log.put(`device-${i}`, i)
  while (Array.from(matcher.turns.values()).reduce((sum, n) => sum + n, 0) < DEVICES) await settled()
  expect(Math.max(...matcher.turns.values())).toBeLessThan(10)
})

it('gives others their turn while a query takes its time, in a snapshot and of older changes', async () => {
  for (let i = 0; i < DEVICES; i++) log.put(`device-${i}`, i)
  using matcher = hardMatcher()
  const client = new Client(clock)
  matcher.watch()
  await follow(streams, client, { subject: { text: 'hard', matcher } })
  while (client.named('snapshot-end').length === 0) await settled()
  expect(matcher.turns.size).toBeGreaterThan(DEVICES / 10)
  expect(Math.max(...matcher.turns.values())).toBeLessThan(10)
})
