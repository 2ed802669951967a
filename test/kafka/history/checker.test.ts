import { describe, expect, test } from 'vitest'
import { type Write as Asked, writeRecord } from '../../../processor/contract/write.ts'
import { check } from './checker.ts'
import { type Answer, type Count, History, type List, type Read, type Told, type Write } from './history.ts'
import { States } from './states.ts'
import { RULES, type Rule } from './verdict.ts'

/** Partition 0: a device that reports, is written to twice, once in vain, is deleted, and comes back; and one that reports once. */
const RED: Asked = {
  kind: 'attributes',
  operation: 'merge',
  attributes: { team: 'red', token: 'A' },
  ifMatch: undefined,
}
const VAIN: Asked = { kind: 'attributes', operation: 'merge', attributes: { team: 'blue', token: 'B' }, ifMatch: ['7'] }
const GONE: Asked = { kind: 'deletion', ifMatch: undefined }
const RECORDS = [
  say('d', '{"load":1}'),
  writeRecord('d', RED, 1_001),
  writeRecord('d', VAIN, 1_002),
  say('e', '{"load":2}'),
  writeRecord('d', GONE, 1_004),
  say('d', '{"load":3}'),
]
const WRITTEN = 1
const REFUSED = 2
const OTHER = 3
const DELETED = 4
const AGAIN = 5
const END = RECORDS.length

function say(key: string, json: string) {
  return { key, value: Buffer.from(json), timestamp: 1_000 }
}

const states = new States()
for (const [offset, record] of RECORDS.entries()) states.add(0, { ...record, offset })

/** A device after all records before `offset`, as an answer shows it. */
function after(deviceId: string, offset: number, servedBy: 'owner' | 'standby' = 'owner'): Answer {
  const { text } = states.at(deviceId, offset)
  return { deviceId, text, freshness: { partition: 0, offset, servedBy } }
}

const read = (invoked: number, answer: Answer, more: Partial<Read> = {}): Read => {
  return { invoked, completed: invoked + 1, by: 'api', answers: [answer], atLeast: undefined, ...more }
}

/** At 10, 20 and 40: what is in the log. */
function writes(): [red: Write, vain: Write, gone: Write] {
  const common = { partition: 0, deviceId: 'd', by: 'api', answer: undefined, ifMatch: undefined }
  return [
    {
      ...common,
      invoked: 10,
      completed: 15,
      token: 'A',
      offset: WRITTEN,
      completion: { type: 'ok', outcome: 'applied' },
    },
    {
      ...common,
      invoked: 20,
      completed: 25,
      token: 'B',
      offset: REFUSED,
      completion: { type: 'ok', outcome: 'stale' },
      ifMatch: '"7"',
    },
    {
      ...common,
      invoked: 40,
      completed: 45,
      token: undefined,
      offset: DELETED,
      completion: { type: 'ok', outcome: 'applied' },
    },
  ]
}

const list = (answers: readonly Answer[], more: Partial<List> = {}): List => {
  return { invoked: 50, completed: 51, by: 'api', q: undefined, answers, ...more }
}

const count = (counted: number, more: Partial<Count> = {}): Count => {
  const freshness = [{ partition: 0, offset: OTHER + 1, servedBy: 'owner' as const }]
  return { invoked: 31, completed: 32, by: 'api', q: undefined, group: undefined, count: counted, freshness, ...more }
}

const told = (event: Told['event'], offset: number, more: Partial<Told> = {}): Told => {
  const { text } = states.at('d', offset)
  return { follower: 'f', q: undefined, connection: 1, event, deviceId: 'd', text, ...more }
}

const held = (...of: readonly Answer[]) => {
  const devices = new Map(of.map(({ deviceId, text }) => [deviceId, text as string]))
  return { holder: 'f', q: undefined, deviceId: undefined, devices }
}

/** What is in `parts`, beside the writes that the log has. */
function historyOf(
  parts: Partial<Pick<History, 'reads' | 'writes' | 'lists' | 'counts' | 'told' | 'holdings'>>,
): History {
  return Object.assign(new History(), { writes: writes(), ...parts })
}

/** Rules that are broken. */
function broken(parts: Parameters<typeof historyOf>[0]): string[] {
  return Object.keys(check(historyOf(parts), states).broken)
}

function changed(which: 0 | 1 | 2, more: Partial<Write>): { writes: Write[] } {
  return { writes: writes().map((write, i) => (i === which ? { ...write, ...more } : write)) }
}

/** By rule: what it allows, and what it does not. */
const CASES: Readonly<Record<Rule, { good: Cases; bad: Cases }>> = {
  'consistent prefix': {
    good: {
      'a device as it was at the offset': { reads: [read(30, after('d', 2))] },
      'more than the offset says': { reads: [read(30, { ...after('d', 2), freshness: after('d', 1).freshness })] },
      'a device that is not there any more': { reads: [read(50, after('d', DELETED + 1))] },
      'nothing of a device that was never heard of': { reads: [read(30, after('nobody', 3))] },
      'what a write came to': changed(0, { answer: after('d', WRITTEN + 1) }),
    },
    bad: {
      'less than the offset says': { reads: [read(30, { ...after('d', 1), freshness: after('d', 2).freshness })] },
      'a status that never was': { reads: [read(30, { ...after('d', 2), text: '{"deviceId":"d"}' })] },
      'no device where there is one': { reads: [read(30, { ...after('d', 2), text: undefined })] },
      'what nobody had asked for yet': { reads: [read(0, { ...after('d', 2), freshness: after('d', 1).freshness })] },
      'a device that was deleted before': {
        lists: [list([{ ...after('d', 2), freshness: after('d', END).freshness }, after('e', END)])],
      },
    },
  },
  'read your writes': {
    good: {
      'an answer that includes the record': { reads: [read(30, after('d', 2), { atLeast: WRITTEN })] },
    },
    bad: {
      'an answer that ends before it': { reads: [read(30, after('d', WRITTEN), { atLeast: WRITTEN })] },
      'the answer to a write without it': changed(0, { answer: after('d', WRITTEN) }),
    },
  },
  'monotonic reads': {
    good: {
      'in order': { reads: [read(30, after('d', 1)), read(32, after('d', 2))] },
      'at the same time': { reads: [read(30, after('d', 2)), read(30.5, after('d', 1))] },
      'through two processes': { reads: [read(30, after('d', 2)), read(32, after('d', 1), { by: 'other' })] },
      'of a standby after an owner': { reads: [read(30, after('d', 2)), read(32, after('d', 1, 'standby'))] },
    },
    bad: {
      'of an owner after an owner': { reads: [read(30, after('d', 2)), read(32, after('e', 1))] },
      'of an owner after a standby': { reads: [read(30, after('d', 2, 'standby')), read(32, after('e', 1))] },
      'by a count': { reads: [read(20, after('d', END))], counts: [count(2)] },
      'of a device that had been further than its answer told': {
        reads: [read(30, { ...after('d', 2), freshness: after('d', 1).freshness }), read(32, after('d', 1))],
      },
    },
  },
  'linearizable writes': {
    good: {
      'as the log has them': {},
      'one of which nothing is known': changed(0, { completion: { type: 'info' }, offset: undefined }),
      'one of which nothing is known, and which did not happen': {
        writes: [...writes(), { ...writes()[0], token: 'C', completion: { type: 'info' }, offset: undefined }],
      },
      'a deletion of which nothing is known': changed(2, { completion: { type: 'info' }, offset: undefined }),
      'at the same time, in the other order': changed(1, { invoked: 5 }),
    },
    bad: {
      'an answer without a position': changed(0, { offset: undefined }),
      'at the position of another': changed(0, { offset: REFUSED }),
      'one that never was in the log': changed(0, { token: 'C' }),
      'one that was never sent': changed(0, { completion: { type: 'fail' }, offset: undefined }),
      'one that nobody asked for': { writes: writes().slice(1) },
      'a deletion that nobody asked for': { writes: writes().slice(0, 2) },
      'before one that had been answered when it was asked': changed(0, { invoked: 26, completed: 27 }),
      'before one that was answered, though nothing is known of it': changed(0, {
        invoked: 26,
        completed: 27,
        offset: undefined,
        completion: { type: 'info' },
      }),
      'two at one place': { writes: [...writes(), { ...writes()[2], invoked: 46, completed: 47 }] },
    },
  },
  'conditional writes': {
    good: {
      'a condition that held': changed(0, { ifMatch: '"1"' }),
      'a condition that held, by the whole tag': changed(0, { ifMatch: 'W/"1-1970-01-01T00:00:01.000Z"' }),
      'any version': changed(0, { ifMatch: '*' }),
      'one of which only the position is known': changed(1, { completion: { type: 'ok', outcome: undefined } }),
    },
    bad: {
      'applied though the condition did not hold': changed(0, { ifMatch: '"2"' }),
      'applied though another device was meant': changed(0, { ifMatch: 'W/"1-1970-01-01T00:00:02.000Z"' }),
      'not applied though it held': changed(1, { ifMatch: '"2"' }),
      'not applied without a condition': changed(1, { ifMatch: undefined }),
      'said to be applied': changed(1, { completion: { type: 'ok', outcome: 'applied' } }),
      'said to be refused': changed(0, { completion: { type: 'ok', outcome: 'stale' } }),
      'said to be of no device': changed(0, { completion: { type: 'ok', outcome: 'unknown-device' } }),
      'applied though nobody knows': changed(0, { ifMatch: '"2"', completion: { type: 'info' }, offset: undefined }),
      'two of one version': {
        writes: writes().map((write) => ({
          ...write,
          ifMatch: 'W/"1-1970-01-01T00:00:01.000Z"',
          completion: { type: 'ok', outcome: 'applied' } as const,
        })),
      },
    },
  },
  'complete lists': {
    good: {
      all: { lists: [list([after('d', END), after('e', END)])] },
      'without a device that was deleted meanwhile': { lists: [list([after('e', OTHER + 1)])] },
      'some, as asked': { lists: [list([after('e', END)], { q: 'reported.load:2' })] },
    },
    bad: {
      'without a device that was there': { lists: [list([after('d', END)])] },
      'one of them twice': { lists: [list([after('d', END), after('e', END), after('e', END)])] },
      'one that does not match': { lists: [list([after('d', END), after('e', END)], { q: 'reported.load:2' })] },
    },
  },
  'exact counts': {
    good: {
      all: { counts: [count(2)] },
      'some, as asked': { counts: [count(1, { q: 'reported.load:2' })] },
      'a group': { counts: [count(1, { group: { state: 'unknown', team: 'red' } })] },
      'with and without what is deleted meanwhile': {
        counts: [count(1, { invoked: 50, completed: 51 }), count(2, { invoked: 50, completed: 51 })],
      },
    },
    bad: {
      'too few': { counts: [count(1)] },
      'too many': { counts: [count(3)] },
      'too many, as asked': { counts: [count(2, { q: 'reported.load:2' })] },
      'too few of a group': { counts: [count(0, { group: { state: 'unknown', team: null } })] },
      'without a partition': { counts: [count(0, { freshness: [] })] },
    },
  },
  'ordered changes': {
    good: {
      'in order': { told: [told('enter', 1), told('change', 2)] },
      'one twice': { told: [told('change', 2), told('change', 2)] },
      'again over another connection': { told: [told('change', 2), told('change', 1, { connection: 2 })] },
      'again after a reset': {
        told: [told('change', 2), told('reset', 0, { deviceId: undefined, text: undefined }), told('enter', 1)],
      },
      'by two followers': { told: [told('change', 2), told('change', 1, { follower: 'g' })] },
    },
    bad: {
      'back within a connection': { told: [told('enter', 2), told('change', 1)] },
      'back from after a deletion': { told: [told('enter', END), told('change', 2)] },
      'a status that never was': { told: [told('enter', 1, { text: '{"deviceId":"d"}' })] },
      'one that does not match': { told: [told('enter', 1, { q: 'attributes.team:red' })] },
    },
  },
  convergence: {
    good: {
      all: { holdings: [held(after('d', END), after('e', END))] },
      'one device': { holdings: [{ ...held(after('d', END)), deviceId: 'd' }] },
      'what matches': { holdings: [{ ...held(after('e', END)), q: 'reported.load:2' }] },
    },
    bad: {
      'one less': { holdings: [held(after('d', END))] },
      'one too many': { holdings: [held(after('d', END), after('e', END), { ...after('e', END), deviceId: 'x' })] },
      'an old one': { holdings: [held(after('d', 2), after('e', END))] },
      'what does not match': { holdings: [{ ...held(after('d', END), after('e', END)), q: 'reported.load:2' }] },
    },
  },
}

type Cases = Readonly<Record<string, Parameters<typeof historyOf>[0]>>

describe.each(Object.entries(CASES))('%s', (rule, { good, bad }) => {
  test.each(Object.entries(good))('allows %s', (_, parts) => {
    expect(broken(parts)).toEqual([])
  })

  test('applies to what it allows', () => {
    const judged = Object.values(good).map((parts) => check(historyOf(parts), states).judged[rule as Rule])
    expect(Math.max(...judged)).toBeGreaterThan(0)
  })

  test.each(Object.entries(bad))('finds %s', (_, parts) => {
    expect(broken(parts)).toContain(rule)
  })
})

test('no rule is without a case', () => {
  expect(Object.keys(CASES)).toEqual(Object.keys(RULES))
})

test('a rule that nothing comes under is known to have judged nothing', () => {
  const { judged, violations } = check(new History(), new States())
  expect(Object.values(judged)).toEqual(Object.keys(RULES).map(() => 0))
  expect(violations).toEqual([])
})

test('a device is what it was between two records', () => {
  expect(states.between('d', 1, REFUSED).map(({ offset }) => offset)).toEqual([0, WRITTEN])
  expect(states.between('d', END, Number.POSITIVE_INFINITY).map(({ offset }) => offset)).toEqual([AGAIN])
})
