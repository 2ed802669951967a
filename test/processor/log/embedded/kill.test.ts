import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { expect, test, vi } from 'vitest'
import type { Claim } from '../../../../processor/log/log.ts'
import { TestMember } from '../../../contract/log-member.ts'
import { text } from '../../../contract/log-records.ts'
import { dump, folder, openLog } from './folder.ts'

const APPENDER = fileURLToPath(new URL('appender.ts', import.meta.url))
const KEYS = 20

interface Acknowledged {
  appended: number
  readonly committed: number[]
}

/** Runs an appender until it has said `lines` lines, and kills it. Adds what it said to `acknowledged`. */
async function runAndKill(path: string, lines: number, acknowledged: Acknowledged): Promise<void> {
  const child = spawn(process.execPath, [APPENDER, path, `${acknowledged.appended + 1}`], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const exited = once(child, 'exit')
  let seen = 0
  for await (const line of createInterface({ input: child.stdout })) {
    const [what, a = '', b = ''] = line.split(' ')
    if (what === 'append') acknowledged.appended = Number(a)
    if (what === 'commit') acknowledged.committed[Number(a)] = Number(b)
    if (++seen === lines) child.kill('SIGKILL')
  }
  expect(await exited).toEqual([null, 'SIGKILL'])
}

test('kill -9 at any point loses nothing that was acknowledged, and leaves no commit in part', async () => {
  const path = await folder()
  const acknowledged: Acknowledged = { appended: -1, committed: [0, 0] }
  for (const lines of [20, 301, 77, 150]) {
    await runAndKill(path, lines, acknowledged)
    const log = await openLog(path, { partitions: 2, standbys: 0 })
    const byKey = new Map<string | null, number[]>()
    for (const index of [0, 1]) {
      for (const r of await dump(log, 'telemetry', index)) {
        byKey.set(r.key, [...(byKey.get(r.key) ?? []), Number(text(r))])
      }
    }
    // Appends whose acknowledgement was not heard may be there, too, and are made again by the next process.
    expect(byKey.size).toBe(KEYS)
    for (const numbers of byKey.values()) {
      const kept = numbers.filter((n) => n <= acknowledged.appended)
      expect([...new Set(kept)]).toEqual(Array.from({ length: acknowledged.appended + 1 }, (_, i) => i))
    }
    const member = new TestMember('reader').join(log)
    await vi.waitFor(() => expect(member.claims.size).toBe(2))
    for (const index of [0, 1]) {
      const { start } = member.claims.get(index) as Claim
      expect(start.input).toBeGreaterThanOrEqual(acknowledged.committed[index] ?? 0)
      const expected = Array.from({ length: start.input }, (_, i) => `${i + 1}`)
      for (const topic of ['status', 'dead-letters'] as const) {
        expect((await dump(log, topic, index)).map(text)).toEqual(expected)
      }
      expect(start.changelogEnd).toBe(start.input)
    }
    await member.leave()
    await log[Symbol.asyncDispose]()
  }
})
