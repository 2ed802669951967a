import { expect, it } from 'vitest'
import { planRestore, type RestoreFacts } from '../../../processor/partition/restore.ts'

const HOUR = 3600_000
const facts: RestoreFacts = {
  checkpoint: { input: 50, changelog: 20, whole: true, since: 100 * HOUR },
  changelog: { start: 0, end: 30 },
  claimed: { input: 60, changelogEnd: 30 },
  now: 101 * HOUR,
  deleteRetentionMs: 24 * HOUR,
}
const since = (hours: number) => ({ input: 50, changelog: 20, whole: true, since: hours * HOUR })

it.each<[string, Partial<RestoreFacts>, object]>([
  ['reads from the start what was never written', { checkpoint: undefined }, { kind: 'fresh', from: 0 }],
  [
    'reads from the oldest record kept',
    { checkpoint: undefined, changelog: { start: 7, end: 30 } },
    { kind: 'fresh', from: 7 },
  ],
  ['goes on at the checkpoint', {}, { kind: 'resume', from: 20 }],
  [
    'goes on at the end',
    { changelog: { start: 0, end: 20 }, claimed: { input: 50, changelogEnd: 20 } },
    { kind: 'resume', from: 20 },
  ],
  ['goes on at the start', { changelog: { start: 20, end: 30 } }, { kind: 'resume', from: 20 }],
  ['goes on as a standby, whatever the input', { claimed: undefined }, { kind: 'resume', from: 20 }],
  ['goes on just within the retention of tombstones', { checkpoint: since(77) }, { kind: 'resume', from: 20 }],
  ['goes on when the clock went back', { checkpoint: since(125) }, { kind: 'resume', from: 20 }],
  ['wipes what a clock dated that was far ahead', { checkpoint: since(125.1) }, { kind: 'wipe', from: 0 }],
  ['wipes what was away for longer', { checkpoint: since(76.9) }, { kind: 'wipe', from: 0 }],
  [
    'goes on at the end, however long it was away',
    { checkpoint: since(0), changelog: { start: 0, end: 20 }, claimed: undefined },
    { kind: 'resume', from: 20 },
  ],
  [
    'goes on at the end of the claim, whatever markers follow',
    { checkpoint: since(0), changelog: { start: 0, end: 21 }, claimed: { input: 60, changelogEnd: 20 } },
    { kind: 'resume', from: 20 },
  ],
  ['wipes what is past the end', { changelog: { start: 0, end: 19 } }, { kind: 'wipe', from: 0 }],
  [
    'goes on as a standby, past an end that leaves out a commit of its own',
    { changelog: { start: 0, end: 19 }, claimed: undefined },
    { kind: 'resume', from: 20 },
  ],
  ['wipes what is below the start', { changelog: { start: 21, end: 30 } }, { kind: 'wipe', from: 21 }],
  [
    'wipes what has seen input that is not committed',
    { claimed: { input: 49, changelogEnd: 30 } },
    { kind: 'wipe', from: 0 },
  ],
])('a restore %s', (_name, given, plan) => {
  expect(planRestore({ ...facts, ...given })).toMatchObject(plan)
})
