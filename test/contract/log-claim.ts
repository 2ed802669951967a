import { describe, expect, test } from 'vitest'
import { deadLetter } from '../../processor/contract/dead-letter.ts'
import { FencedError } from '../../processor/contract/errors.ts'
import type { Claim, NewRecord } from '../../processor/log/log.ts'
import { aborted } from '../../processor/runtime/pause.ts'
import type { LogContext } from './log-harness.ts'
import { read } from './log-member.ts'
import { collect, keyIn, numbered, record, text } from './log-records.ts'

export function claimContract({ start, join, until, holds }: LogContext): void {
  describe('claim', () => {
    test('commits changelog, dead letters and input offset as one, and the next claim starts there', async () => {
      const harness = await start(1)
      await harness.log.append('telemetry', numbered(0, 26))
      const [first] = await join(harness, 'first')
      await holds(first, 1)
      const claim = first.claims.get(0) as Claim
      expect(claim.start).toEqual({ input: 0, changelogEnd: 0 })
      expect(claim.inputEnd).toBe(26)
      await claim.commit({ changelog: numbered(0, 3), deadLetters: [], next: 10 })
      const done = await claim.commit({ changelog: numbered(3, 2), deadLetters: [record('x', 'dead')], next: 20 })
      const empty = await claim.commit({ changelog: [], deadLetters: [], next: 25 })
      expect(empty.changelogEnd).toBeGreaterThanOrEqual(done.changelogEnd)
      await first.leave()

      const [second, log] = await join(harness, 'second')
      await holds(second, 1)
      const next = second.claims.get(0) as Claim
      expect(next.epoch).toBeGreaterThan(claim.epoch)
      expect(next.start).toEqual({ input: 25, changelogEnd: empty.changelogEnd })
      const changelog = await read(log, 'status', 0, 0, next.start.changelogEnd)
      expect(changelog.map(text)).toEqual(numbered(0, 5).map(text))
      expect((await collect(log, 'dead-letters', 1, 1)).map(text)).toEqual(['dead'])

      const after = await next.commit({ changelog: numbered(5, 1), deadLetters: [], next: 26 })
      const rest = await read(log, 'status', 0, next.start.changelogEnd, after.changelogEnd)
      expect(rest.map(text)).toEqual(['5'])
    })

    test('commits a dead letter of a key to the partition in which the key lives', async () => {
      const harness = await start(4)
      const [member, log] = await join(harness, 'one')
      await holds(member, 4)
      const letters = [0, 1, 2, 3].map((index) => record(keyIn(index, 4), `${index}`))
      const commit = (letter: NewRecord, index: number) =>
        (member.claims.get(index) as Claim).commit({ changelog: [], deadLetters: [letter], next: 0 })
      await Promise.all(letters.map(commit))
      await log.append('dead-letters', letters)
      for (const index of [0, 1, 2, 3]) {
        const got = await read(log, 'dead-letters', index, 0, (all) => all.length >= 2)
        expect(got.map(text)).toEqual([`${index}`, `${index}`])
      }
    })

    test('commits the dead letters of records that no log would take', async () => {
      const harness = await start(1)
      const [member, log] = await join(harness, 'one')
      await holds(member, 1)
      const origin = { partition: 0, offset: 0 }
      const deadLetters = [1024 * 1024 - 100, 1536 * 1024].map((bytes) =>
        deadLetter('payload-too-large', { key: 'k'.repeat(30), value: Buffer.alloc(bytes, 'x'), timestamp: 1 }, origin),
      )
      const claim = member.claims.get(0) as Claim
      await claim.commit({ changelog: [], deadLetters, next: 2 })
      const letters = await collect(log, 'dead-letters', 1, 2)
      expect(letters.map(({ headers }) => headers?.truncated)).toEqual(['value=1048476', 'value=1572864'])
      expect(
        (await claim.commit({ changelog: numbered(0, 1), deadLetters: [], next: 3 })).changelogEnd,
      ).toBeGreaterThan(0)
    })

    test('of an older epoch commits nothing, and its holder comes back by itself', async () => {
      const harness = await start(2)
      for (const index of [0, 1]) {
        const given = Array.from({ length: 6 }, () => record(keyIn(index, 2), 'given'))
        await harness.log.append('telemetry', given)
      }
      const zombieClaims = new Map<number, Claim>()
      const wake = new AbortController()
      const fenced: unknown[] = []
      const [zombie, zombieLog] = await join(harness, 'zombie', {
        async active(claim, signal) {
          if (wake.signal.aborted) return aborted(signal)
          zombieClaims.set(claim.partition, claim)
          await claim.commit({ changelog: [record('k', 'before')], deadLetters: [], next: 5 })
          // A zombie is one who hears nothing: it goes on whatever its signal says.
          await aborted(wake.signal)
          const work = { changelog: [record('k', 'zombie')], deadLetters: [record('k', 'zombie')], next: 99 }
          await claim.commit(work).catch((error: unknown) => {
            fenced.push(error)
            throw error
          })
        },
      })
      await until(() => expect(zombieClaims.size).toBe(2))
      for (const index of [0, 1]) await read(harness.log, 'status', index, 0, (records) => records.length >= 1)
      const [heir, log] = await join(harness, 'heir')
      await harness.evict(zombieLog, zombie)
      await holds(heir, 2)
      const starts = new Map([...heir.claims].map(([index, claim]) => [index, claim.start]))
      for (const [index, claim] of heir.claims) {
        expect(claim.start.input).toBe(5)
        expect(claim.epoch).toBeGreaterThan((zombieClaims.get(index) as Claim).epoch)
      }
      const heirs = [...heir.claims.values()]
      await until(() => expect(heirs.every(({ held }) => held)).toBe(true))
      await until(() => expect([...zombieClaims.values()].some(({ held }) => held)).toBe(false))
      wake.abort()
      await until(() => expect(fenced.length).toBe(2))
      for (const error of fenced) expect(error).toBeInstanceOf(FencedError)

      // One partition goes back once the zombie has found out; join() has not rejected.
      await until(() => expect(zombie.claims.size + heir.claims.size).toBe(2))
      await holds(zombie, 1)
      expect(zombie.outcome).toBe('in')
      const back = [...zombie.claims.values()][0] as Claim
      expect(back.start).toEqual(starts.get(back.partition))
      const kept = heirs.find((claim) => claim.partition !== back.partition) as Claim
      for (const claim of [back, kept]) {
        const done = await claim.commit({ changelog: [record('k', 'after')], deadLetters: [], next: 6 })
        const changelog = await read(log, 'status', claim.partition, 0, done.changelogEnd)
        expect(changelog.map(text)).toEqual(['before', 'after'])
      }
      await log.append(
        'dead-letters',
        [0, 1].map((index) => record(keyIn(index, 2), 'marker')),
      )
      expect((await collect(log, 'dead-letters', 2, 2)).map(text)).toEqual(['marker', 'marker'])
    })
  })

  describe('reopen', () => {
    test('finds everything as it was: records, positions, identity; and older claims fenced', async () => {
      const harness = await start(2)
      const { identity } = harness.log
      expect(identity.partitions).toBe(2)
      for (const id of [identity.cluster, identity.telemetry, identity.status]) expect(id).not.toBe('')
      await harness.log.append('telemetry', numbered(0, 40))
      const before = await Promise.all([0, 1].map((index) => harness.log.bounds({ topic: 'telemetry', index })))
      const [a] = await join(harness, 'a')
      await holds(a, 2)
      const claims = new Map(a.claims)
      const ends = new Map<number, number>()
      for (const [index, claim] of claims) {
        const work = { changelog: [record('k', `${index}`)], deadLetters: [], next: before[index]?.end ?? 0 }
        ends.set(index, (await claim.commit(work)).changelogEnd)
      }
      await a.leave()

      const log = await harness.reopen()
      expect(log.identity).toEqual(identity)
      expect(await Promise.all([0, 1].map((index) => log.bounds({ topic: 'telemetry', index })))).toEqual(before)
      const [b] = await join(harness, 'b')
      await holds(b, 2)
      for (const [index, claim] of b.claims) {
        expect(claim.start).toEqual({ input: before[index]?.end, changelogEnd: ends.get(index) })
        expect(claim.epoch).toBeGreaterThan((claims.get(index) as Claim).epoch)
        const changelog = await read(log, 'status', index, 0, claim.start.changelogEnd)
        expect(changelog.map(text)).toEqual([`${index}`])
      }
      await log.append('telemetry', numbered(40, 10))
      expect((await collect(log, 'telemetry', 2, 50)).length).toBe(50)
    })
  })
}
