import { describe, expect, test } from 'vitest'
import { FencedError, RetryableError } from '../../processor/contract/errors.ts'
import { partitionOf } from '../../processor/contract/partition.ts'
import type { Claim, Copying, Log, LogRecord, NewRecord } from '../../processor/log/log.ts'
import { aborted } from '../../processor/runtime/pause.ts'
import type { LogContext } from './log-harness.ts'
import { type RoleHooks, read } from './log-member.ts'
import { record, text } from './log-records.ts'

export function groupContract({ start, join, until, holds }: LogContext): void {
  describe('group', () => {
    test('gives one member everything, and a second one half, stopping only what moves', async () => {
      const harness = await start(8)
      const [a] = await join(harness, 'a')
      await holds(a, 8)
      const before = new Map(a.claims)
      const [b] = await join(harness, 'b')
      await holds(b, 4)
      await holds(a, 4)
      for (const [index, claim] of a.claims) expect(claim).toBe(before.get(index))
      expect(a.events.filter((event) => event.startsWith('end')).length).toBe(4)
      expect([...a.claims.keys(), ...b.claims.keys()].sort((x, y) => x - y)).toEqual([0, 1, 2, 3, 4, 5, 6, 7])
      for (const [index, claim] of b.claims) expect(claim.epoch).toBeGreaterThan((before.get(index) as Claim).epoch)
    })

    test('gives a member what others work on only when its copies are whole', async () => {
      const harness = await start(4)
      let whole = 0
      const wholeAtEnds: number[] = []
      const active = async (_: Claim, signal: AbortSignal) => {
        await aborted(signal)
        wholeAtEnds.push(whole)
      }
      const [a] = await join(harness, 'a', { active })
      for (let index = 0; index < 4; index++) a.warm.set(index, 10_000)
      await holds(a, 4)
      const copies = new Map<number, Copying>()
      const standby = (index: number, signal: AbortSignal, copying: Copying) => {
        copies.set(index, copying)
        return aborted(signal)
      }
      const [b] = await join(harness, 'b', { standby })
      await until(() => expect(copies.size).toBe(2))
      expect([...copies.values()].every(({ heir }) => heir)).toBe(true)
      const [first, second] = [...copies.values()] as [Copying, Copying]
      whole++
      first.whole(true)
      await turns()
      expect(a.claims.size).toBe(4)
      // Its store was wiped, or cannot be written.
      whole--
      first.whole(false)
      whole++
      second.whole(true)
      await turns()
      expect(a.claims.size).toBe(4)
      whole++
      first.whole(true)
      await holds(b, 2)
      await holds(a, 2)
      expect(wholeAtEnds).toEqual([2, 2])
      expect(b.overlapped).toBe(false)
    })

    test('lets a standby know that its member may be out of the group', async () => {
      const harness = await start(2, 1)
      const [a] = await join(harness, 'a')
      await holds(a, 2)
      const copies = new Map<number, Copying>()
      const standby = (index: number, signal: AbortSignal, copying: Copying) => {
        copies.set(index, copying)
        copying.whole(true)
        return aborted(signal)
      }
      const [b, log] = await join(harness, 'b', { standby })
      await holds(b, 1)
      const kept = () => copies.get([...a.claims.keys()][0] as number)
      await until(() => expect(kept()?.held).toBe(true))
      const copying = kept() as Copying
      await harness.evict(log, b)
      await until(() => expect(copying.held).toBe(false))
    })

    test('hands the partitions of a leaving member over after its roles have ended', async () => {
      const harness = await start(6)
      const [a] = await join(harness, 'a')
      const [b] = await join(harness, 'b')
      const [c] = await join(harness, 'c')
      for (const member of [a, b, c]) await holds(member, 2)
      const kept = new Map(b.claims)
      await a.leave()
      expect(a.outcome).toBe('left')
      expect(a.claims.size).toBe(0)
      await holds(b, 3)
      await holds(c, 3)
      for (const [index, claim] of kept) expect(b.claims.get(index)).toBe(claim)
    })

    test('gives the partitions of a crashed member to the rest', async () => {
      const harness = await start(4)
      const [a, log] = await join(harness, 'a')
      const [b] = await join(harness, 'b')
      await holds(a, 2)
      await holds(b, 2)
      const kept = new Map(b.claims)
      await harness.crash(log, a)
      await holds(b, 4)
      for (const [index, claim] of kept) expect(b.claims.get(index)).toBe(claim)
    })

    test('keeps standbys on other members, and ends one before it is promoted', async () => {
      const harness = await start(4, 1)
      const [a, log] = await join(harness, 'a')
      const [b] = await join(harness, 'b')
      await until(() => {
        for (const member of [a, b]) {
          expect(member.claims.size).toBe(2)
          expect(member.standbys.size).toBe(2)
        }
      })
      for (const index of a.claims.keys()) expect(b.standbys.has(index)).toBe(true)
      const promoted = [...b.standbys]
      await harness.crash(log, a)
      await holds(b, 4)
      expect(b.standbys.size).toBe(0)
      for (const index of promoted) {
        const role = b.events.filter((event) => event.endsWith(` ${index}`)).slice(-3)
        expect(role).toEqual([`standby ${index}`, `end standby ${index}`, `active ${index}`])
      }
      expect(b.overlapped).toBe(false)
    })

    test('tells every client who holds what', async () => {
      const harness = await start(3, 1)
      const outsider = await harness.connect()
      const none = await outsider.owners()
      for (let index = 0; index < 3; index++) expect(none.get(index)?.active).toBeUndefined()
      const [a] = await join(harness, 'a')
      const [b] = await join(harness, 'b')
      await until(() => expect([a.claims.size + b.claims.size, a.standbys.size + b.standbys.size]).toEqual([3, 3]))
      await until(async () => {
        const owners = await outsider.owners()
        for (let index = 0; index < 3; index++) {
          const [owner, standby] = a.claims.has(index) ? [a, b] : [b, a]
          const { instance, endpoint } = owner
          expect(owners.get(index)?.active).toEqual({ instance, endpoint })
          expect(owners.get(index)?.standbys).toEqual([{ instance: standby.instance, endpoint: standby.endpoint }])
        }
      })
    })

    test('rejects join() with what a role rejected with, after its other roles have ended', async () => {
      const harness = await start(4)
      const broken = new Error('the role is broken')
      const [b] = await join(harness, 'b')
      await holds(b, 4)
      const fail = new AbortController()
      const [a] = await join(harness, 'a', {
        async active(claim, signal) {
          if (claim.partition === Math.min(...a.claims.keys())) {
            await Promise.race([aborted(fail.signal), aborted(signal)])
            if (fail.signal.aborted) throw broken
          }
          await aborted(signal)
        },
      })
      await holds(a, 2)
      fail.abort()
      await until(() => expect(a.outcome).toBe(broken))
      expect(a.claims.size).toBe(0)
      await holds(b, 4)
      expect(b.outcome).toBe('in')
    })

    test.each([
      ['over', 'ends the role alone', 'in'],
      ['held', 'ends the member', 'LOG_UNAVAILABLE'],
    ] as const)('RetryableError of an owner whose claim is %s %s', async (state, _, outcome) => {
      const harness = await start(1)
      const failure = new RetryableError('LOG_UNAVAILABLE', 'the log cannot be read')
      const claims: Claim[] = []
      const wake = new AbortController()
      const [a, log] = await join(harness, 'a', {
        async active(claim, signal) {
          if (claims.push(claim) > 1) return aborted(signal)
          await aborted(wake.signal)
          const work = { changelog: [record('k', 'late')], deadLetters: [], next: 0 }
          if (state === 'over') await expect(claim.commit(work)).rejects.toBeInstanceOf(FencedError)
          throw failure
        },
      })
      await until(() => expect(claims).toHaveLength(1))
      if (state === 'over') {
        const [b] = await join(harness, 'b')
        await harness.evict(log, a)
        await holds(b, 1)
        wake.abort()
        // Back in the group it is given the partition once nobody else is there.
        await until(() => expect(a.events).toContain('end active 0'))
        await b.leave()
        await until(() => expect(claims).toHaveLength(2))
      }
      wake.abort()
      await until(() => expect(a.outcome === 'in' ? 'in' : (a.outcome as RetryableError).code).toBe(outcome))
    })

    test('applies every record exactly once while members come, go and die', async () => {
      const harness = await start(3, 1)
      const keys = Array.from({ length: 20 }, (_, i) => `device-${i}`)
      const rounds = 30
      const [a, logA] = await join(
        harness,
        'a',
        counting(() => logA),
      )
      await holds(a, 3)
      const appending = (async () => {
        for (let round = 0; round < rounds; round++) {
          await harness.log.append(
            'telemetry',
            keys.map((key) => record(key, `${round}`)),
          )
        }
      })()
      const [b, logB] = await join(
        harness,
        'b',
        counting(() => logB),
      )
      await until(() => expect(b.claims.size).toBeGreaterThanOrEqual(1))
      const [c, logC] = await join(
        harness,
        'c',
        counting(() => logC),
      )
      await until(() => expect(c.claims.size).toBeGreaterThanOrEqual(1))
      await harness.crash(logA, a)
      await until(() => expect(b.claims.size + c.claims.size).toBe(3))
      await b.leave()
      await holds(c, 3)
      await appending
      for (let index = 0; index < 3; index++) {
        const mine = keys.filter((key) => partitionOf(key, 3) === index)
        const expected = new Map(mine.map((key) => [key, rounds]))
        const all = (records: readonly LogRecord[]) => {
          const counts = counted(records)
          return mine.every((key) => (counts.get(key) ?? 0) >= rounds)
        }
        const changelog = await read(harness.log, 'status', index, 0, all)
        expect(counted(changelog)).toEqual(expected)
      }
    })
  })
}

/** What a group that lives in this process would do by itself is done. */
async function turns(): Promise<void> {
  for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setImmediate(resolve))
}

/** A processor in small: counts the records of each key, and keeps the counts in the changelog alone. */
function counting(log: () => Log): RoleHooks {
  return {
    async active(claim, signal) {
      const counts = new Map<string, number>()
      for (const r of await read(log(), 'status', claim.partition, 0, claim.start.changelogEnd)) {
        counts.set(r.key as string, Number(text(r)))
      }
      const input = { topic: 'telemetry', index: claim.partition } as const
      for await (const batch of log().follow(input, claim.start.input, { maxRecords: 7, maxBytes: 1 << 20 }, signal)) {
        const changed = new Map<string, number>()
        for (const r of batch.records) changed.set(r.key as string, (changed.get(r.key as string) ?? 0) + 1)
        const changelog: NewRecord[] = []
        for (const [key, more] of changed) {
          const total = (counts.get(key) ?? 0) + more
          counts.set(key, total)
          changelog.push(record(key, `${total}`))
        }
        await claim.commit({ changelog, deadLetters: [], next: batch.next })
      }
    },
  }
}

/** The newest count of each key. */
function counted(records: readonly LogRecord[]): Map<string | null, number> {
  return new Map(records.map((r) => [r.key, Number(text(r))]))
}
