import { execFileSync } from 'node:child_process'
import { rm, statfs, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, onTestFinished, test, vi } from 'vitest'
import type { Claim, NewRecord } from '../../../../processor/log/log.ts'
import { read, TestMember } from '../../../contract/log-member.ts'
import { record, text } from '../../../contract/log-records.ts'
import { dump, folder, openLog } from './folder.ts'

const MIB = 1024 * 1024

/** A volume of its own, or why there can be none. */
function mount(path: string, megabytes: number): string | undefined {
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${megabytes}m`, 'tmpfs', path], { stdio: 'pipe' })
    return undefined
  } catch (error) {
    return `a tmpfs cannot be mounted here: ${error instanceof Error ? error.message : String(error)}`
  }
}

test('a full disk fails appends and commits, loses nothing acknowledged, and the log recovers by itself', async (context) => {
  const path = await folder()
  const unable = mount(path, 128)
  if (unable !== undefined) context.skip(unable)
  onTestFinished(() => void execFileSync('umount', ['-l', path]))
  const log = await openLog(join(path, 'log'), { minFreeBytes: 48 * MIB })
  const member = new TestMember('m').join(log)
  await vi.waitFor(() => expect(member.claims.size).toBe(1))
  const before = member.claims.get(0) as Claim
  const filler = join(path, 'filler')
  const { bavail, bsize } = await statfs(path)
  await writeFile(filler, Buffer.alloc(bavail * bsize - 12 * MIB))

  const acknowledged: string[] = []
  const append = async (n: number) => {
    const value = Buffer.from(`${n}`.padEnd(100_000))
    const records: NewRecord[] = [{ key: 'k', value, timestamp: 0 }]
    await log.append('telemetry', records)
    acknowledged.push(`${n}`)
  }
  let n = 0
  const fillUp = async () => {
    for (;;) await append(n++)
  }
  const full = { name: 'RetryableError', code: 'LOG_NO_SPACE' }
  await expect(fillUp()).rejects.toMatchObject(full)
  expect(log.fault).toMatchObject(full)
  await expect(log.append('telemetry', [record('k', 'refused')])).rejects.toMatchObject(full)
  await expect(before.commit({ changelog: [record('k', 'v')], deadLetters: [], next: 1 })).rejects.toMatchObject(full)
  // What was acknowledged can be read while the disk is full.
  expect((await read(log, 'telemetry', 0, 0, acknowledged.length)).map((r) => text(r).trim())).toEqual(acknowledged)

  await rm(filler)
  await vi.waitFor(() => expect(log.fault).toBeUndefined(), { timeout: 20_000 })
  await append(n++)
  // The claim whose commit failed is over; the member has a new one that starts where the last commit ended.
  await vi.waitFor(() => expect(member.claims.get(0)?.epoch).toBeGreaterThan(before.epoch), { timeout: 20_000 })
  const after = member.claims.get(0) as Claim
  expect(after.start).toEqual(before.start)
  await after.commit({ changelog: [record('k', 'v')], deadLetters: [], next: 1 })
  await member.leave()
  expect(member.outcome).toBe('left')
  await log[Symbol.asyncDispose]()

  const again = await openLog(join(path, 'log'))
  const kept = (await dump(again, 'telemetry')).map((r) => text(r).trim())
  expect(kept.filter((value) => acknowledged.includes(value))).toEqual(acknowledged)
  expect((await dump(again, 'status')).map(text)).toEqual(['v'])
  await again[Symbol.asyncDispose]()
})
