import { afterEach, expect, vi } from 'vitest'
import type { Log } from '../../processor/log/log.ts'
import { type RoleHooks, TestMember } from './log-member.ts'

export interface HarnessOptions {
  readonly partitions: number
  readonly standbys: number
}

/** A fresh log and what a test must be able to do to it. Disposing of it closes every client and removes the data. */
export interface LogHarness extends AsyncDisposable {
  readonly log: Log
  /** A client such as another process has. Where the log lives in one process, it may be `log` again. */
  connect(): Promise<Log>
  /** The process of this member dies without leaving; its roles may hang, and have no more effect. */
  crash(log: Log, member: TestMember): Promise<void>
  /** The group takes the member for dead. It lives on, and finds out by itself. */
  evict(log: Log, member: TestMember): Promise<void>
  /** Closes every client, and opens the same data again. */
  reopen(): Promise<Log>
}

/** What the tests of the contract work with. */
export interface LogContext {
  /** A fresh log, closed after the test. */
  readonly start: (partitions: number, standbys?: number) => Promise<LogHarness>
  /** A member with a client of its own, which leaves after the test. */
  readonly join: (harness: LogHarness, instance: string, hooks?: RoleHooks) => Promise<[TestMember, Log]>
  /** Waits for a condition. */
  readonly until: (condition: () => void | Promise<void>) => Promise<void>
  /** Waits until a member has so many active roles. */
  readonly holds: (member: TestMember, count: number) => Promise<void>
}

/** Made within a describe, whose tests it cleans up after. */
export function logContext(open: (options: HarnessOptions) => Promise<LogHarness>, patienceMs: number): LogContext {
  const opened: AsyncDisposable[] = []
  const members: TestMember[] = []
  afterEach(async () => {
    // A crashed member's join may never end, and disposing of the log is what ends it.
    const leaving = members.splice(0).map((member) => member.leave())
    for (const harness of opened.splice(0)) await harness[Symbol.asyncDispose]()
    await Promise.all(leaving)
  })
  const until = (condition: () => void | Promise<void>) => vi.waitFor(condition, { timeout: patienceMs, interval: 10 })
  return {
    async start(partitions, standbys = 0) {
      const harness = await open({ partitions, standbys })
      opened.push(harness)
      return harness
    },
    async join(harness, instance, hooks) {
      const log = await harness.connect()
      const member = new TestMember(instance, hooks).join(log)
      members.push(member)
      return [member, log]
    },
    until,
    holds: (member, count) => until(() => expect(member.claims.size).toBe(count)),
  }
}
