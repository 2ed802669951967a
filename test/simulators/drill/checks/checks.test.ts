import { describe, expect, test } from 'vitest'
import { ChangelogCheck } from '../../../../simulators/drill/checks/changelog-check.ts'
import type { CopyReading, DeviceAnswer } from '../../../../simulators/drill/checks/copies.ts'
import { Ranges, removedSince } from '../../../../simulators/drill/checks/input-count.ts'
import { type Evidence, judge } from '../../../../simulators/drill/checks/invariants.ts'
import type { ReadersReport } from '../../../../simulators/drill/load/readers.ts'
import type { VisitorReport } from '../../../../simulators/drill/load/visitors.ts'
import type { LogReading } from '../../../../simulators/drill/stage/evidence.ts'
import type { KafkaRecord } from '../../../../simulators/drill/stage/kafka-client.ts'
import { SEQ_START } from '../../../../simulators/load/load-connection.ts'

const ID = 'drill-0000000'
const AT = '2026-11-24T10:00:00.000Z'

function status({ rev = 2, messages = 2, session = 1, at = AT } = {}) {
  return {
    deviceId: ID,
    rev,
    reported: { temperature: { value: 20, at } },
    connectivity: { state: 'online', since: AT, reason: 'connected', session },
    firstSeenAt: AT,
    lastSeenAt: AT,
    counters: { messages, late: 0, duplicates: 1, skewed: 0 },
    sequence: { seen: [[SEQ_START, SEQ_START + messages - 1]], session },
  }
}

function record(
  offset: number,
  value: object,
  { epoch = 7, input }: { epoch?: number; input?: number } = {},
): KafkaRecord {
  const headers: Record<string, string> = input === undefined ? {} : { input: String(input) }
  return { partition: 0, offset, key: ID, value: Buffer.from(JSON.stringify(value)), timestamp: 1, headers, epoch }
}

const READS: ReadersReport = {
  reads: 10,
  failures: 0,
  excused: 0,
  failed: [],
  wrongCount: 0,
  wrong: [],
  latencyMs: { p50: 1, p99: 1, max: 1 },
  stale: { answers: 0, p99Ms: 0, maxMs: 0 },
  longestGapMs: 5,
  standbyAnswers: 0,
  olderFromStandby: 0,
  wentBack: [],
  wentBackCount: 0,
}

const COPY: CopyReading = {
  instance: 'p1',
  partition: 0,
  role: 'owner',
  devices: 1,
  differing: 0,
  example: undefined,
  digest: 'a',
}

const LEDGER: Evidence['ledger'] = {
  acknowledgedTo: () => 2,
  published: 2,
  count: 2,
  again: 0,
  refusals: 1,
  violations: 0,
  violation: [],
}

const SENDING: Evidence['sending'] = { ms: 1_000, sent: 2, locked: 0, longestMs: 15_000 }

const VISITOR: VisitorReport = { id: ID, farewell: 'stays', left: true, lost: 0, resent: 1 }

/** A run in which all is as it should be: two messages and a duplicate of one device, in one commit. */
function sound(
  changes: Partial<Evidence & LogReading> = {},
  records = [record(0, status(), { input: 3 })],
  changelogEnd = records.length,
): Evidence {
  const changelog = new ChangelogCheck('drill', [[{ input: 3, changelogEnd }]])
  for (const each of records) changelog.take(0, each)
  changelog.finish()
  const seqs = new Ranges()
  for (const seq of [SEQ_START, SEQ_START + 1, SEQ_START + 1]) seqs.add(seq)
  const text = JSON.stringify(status())
  const log: LogReading = {
    input: {
      devices: new Map([[ID, { messages: 3, seqs, wills: new Map() }]]),
      records: 3,
      statuses: new Map([[ID, text]]),
    },
    removed: [],
    changelog,
    committed: [{ input: 3, changelogEnd: 1 }],
    changelogEnds: [1],
    deadLetters: 2,
  }
  return {
    ids: [ID],
    partitions: 1,
    copiesDue: 1,
    ledger: LEDGER,
    connections: { all: 1, open: 1 },
    sending: SENDING,
    rate: 2,
    failure: undefined,
    unsettled: undefined,
    answers: new Map([[ID, answer(status())]]),
    alone: { asked: [ID], answers: new Map([[ID, answer(status())]]) },
    log: { ...log, ...changes },
    copies: [COPY],
    missing: [],
    reads: READS,
    failedReads: 0,
    falls: [],
    zombies: ['p1'],
    poison: { sent: 2, acknowledged: 2 },
    visitors: [VISITOR],
    ...changes,
  }
}

function answer(of: object): DeviceAnswer {
  return { ...of, freshness: { partition: 0, offset: 3, changelog: 1, lag: 0, servedBy: 'owner' } } as DeviceAnswer
}

/** Wills of the device are in the log, of which its status knows nothing. */
function withWills(wills: Record<string, number>, visitor: VisitorReport): Evidence {
  const evidence = sound({ visitors: [visitor] })
  const device = evidence.log?.input.devices.get(ID)
  for (const [will, count] of Object.entries(wills)) device?.wills.set(will, count)
  return evidence
}

function broken(evidence: Evidence): string[] {
  return judge(evidence).flatMap(({ name, held }) => (held ? [] : [name]))
}

const COULD_SEND = 'devices could send'
const IN_ORDER = 'each acknowledgement is of what was sent, in order'
const LOST = 'nothing acknowledged is lost'
const ONCE = 'each log record is counted once'
const FAREWELLS = 'connectivity, wills and QoS 2 are as MQTT has them'
const BACK = 'rev, event times and sessions never go back'
const OWNER = 'no two owners of a partition commit'
const ZOMBIE = 'the zombie committed nothing'
const AHEAD = 'the committed offset is never ahead of the changelog'
const STORE = 'every store equals the fold of the input'
const FOREIGN = 'a reader of the changelog sees what the API answers'
const POISON = 'bad payloads stop nothing and do not disappear'
const READING = 'reads went on'
const first = record(0, status({ rev: 1, messages: 1 }), { input: 2 })

describe('the invariants of a drill', () => {
  test('all hold of a sound run', () => {
    expect(broken(sound())).toEqual([])
  })

  test('hold when reads failed that nobody could answer, or fewer than may', () => {
    const failures = { failures: 3, excused: 2, failed: ['503'] }
    const told = judge(sound({ reads: { ...READS, ...failures }, failedReads: 1 })).find(({ name }) => name === READING)
    expect(told).toMatchObject({
      held: true,
      evidence: expect.stringContaining('3 of 10 failed (2 allowed: nobody could stand in)'),
    })
  })

  test('hold when a coordinator forgot commits for a while, and that is told', () => {
    const seen = [
      { input: 3, changelogEnd: 2 },
      { input: 2, changelogEnd: 1 },
      { input: 3, changelogEnd: 2 },
    ]
    const changelog = new ChangelogCheck('drill', [seen])
    for (const each of [first, record(1, status(), { input: 3 })]) changelog.take(0, each)
    changelog.finish()
    const told = judge(sound({ changelog, changelogEnds: [2] })).find(({ name }) => name === AHEAD)
    expect(told).toMatchObject({ held: true, evidence: expect.stringContaining('1 behind an earlier one') })
  })

  test.each<[string, Evidence, string[]]>([
    [
      'an acknowledged message that the log lacks',
      sound({ input: { devices: new Map(), records: 0, statuses: new Map([[ID, JSON.stringify(status())]]) } }),
      [LOST],
    ],
    [
      'an acknowledged message that the answer lacks',
      sound({ answers: new Map([[ID, answer(status({ messages: 1 }))]]) }),
      [LOST, ONCE, FOREIGN],
    ],
    ['a device nobody knows', sound({ answers: new Map() }), [LOST, ONCE, FAREWELLS, FOREIGN]],
    [
      'a rev that went back in the changelog',
      sound({}, [record(0, status({ rev: 3 })), record(1, status(), { input: 3 })]),
      [BACK],
    ],
    [
      'an event time that went back',
      sound({}, [record(0, status({ at: '2026-11-24T11:00:00.000Z' })), record(1, status(), { input: 3 })]),
      [BACK],
    ],
    [
      'a session that went back',
      sound({}, [record(0, status({ session: 2 })), record(1, status(), { input: 3 })]),
      [BACK],
    ],
    ['a device that went and is online', sound({ visitors: [{ ...VISITOR, farewell: 'disconnects' }] }), [FAREWELLS]],
    ['a QoS 2 message twice', sound({ visitors: [{ ...VISITOR, resent: 0 }] }), [FAREWELLS]],
    ['a will that nobody left', withWills({ earlier: 2 }, { ...VISITOR, lost: 1 }), [ONCE, FAREWELLS]],
    ['a last will twice', withWills({ last: 2 }, { ...VISITOR, lost: 2 }), [ONCE, FAREWELLS]],
    ['a reader who saw a rev go back', sound({ reads: { ...READS, wentBack: ['x'], wentBackCount: 1 } }), [BACK]],
    [
      'a commit under an overtaken epoch',
      sound({}, [record(0, status({ rev: 1 }), { epoch: 8 }), record(1, status(), { input: 3 })]),
      [OWNER, ZOMBIE],
    ],
    [
      'a commit of input that had been committed',
      sound({ committed: [], changelogEnds: [] }, [first, record(1, status(), { input: 2 })]),
      [OWNER],
    ],
    ['an offset ahead of the changelog', sound({ committed: [{ input: 9, changelogEnd: 2 }] }), [AHEAD]],
    ['an offset without a changelog end', sound({ committed: [{ input: 3, changelogEnd: Number.NaN }] }), [AHEAD]],
    ['an offset seen ahead of the changelog', sound({}, [first, record(1, status(), { input: 3 })], 1), [AHEAD]],
    ['a store that differs', sound({ copies: [{ ...COPY, differing: 1, example: 'x' }] }), [STORE]],
    ['copies that differ', sound({ copies: [COPY, { ...COPY, role: 'standby', digest: 'b' }] }), [STORE]],
    [
      'a changelog that ends with another status',
      sound({}, [record(0, status({ messages: 1 }), { input: 3 })]),
      [FOREIGN],
    ],
    [
      'an older answer to who asks for the device alone',
      sound({ alone: { asked: [ID], answers: new Map([[ID, answer(status({ rev: 1, messages: 1 }))]]) } }),
      [FOREIGN],
    ],
    ['a device unknown to who asks for it alone', sound({ alone: { asked: [ID], answers: new Map() } }), [FOREIGN]],
    ['a read that failed', sound({ reads: { ...READS, failures: 1, failed: ['503'] } }), [READING]],
    ['one without excuse', sound({ reads: { ...READS, failures: 3, excused: 2, failed: ['503'] } }), [READING]],
    ['a wrong answer', sound({ reads: { ...READS, wrongCount: 1, wrong: ['x'] }, failedReads: Infinity }), [READING]],
    ['a bad payload that is nowhere', sound({ deadLetters: 1 }), [POISON]],
    ['one that was never acknowledged', sound({ poison: { sent: 2, acknowledged: 1 } }), [POISON]],
    [
      'a process that ended',
      sound({ falls: [{ target: 'p1', exit: { code: 1, signal: null }, said: 'x' }] }),
      ['no process ended by itself'],
    ],
    ['no rest', sound({ unsettled: 'x' }), ['it came to rest']],
    ['a connection that did not come back', sound({ connections: { all: 2, open: 1 } }), [COULD_SEND]],
    ['a connection that was locked out', sound({ sending: { ...SENDING, locked: 1 } }), [COULD_SEND]],
    ['next to no messages', sound({ sending: { ...SENDING, sent: 19, ms: 100_000 } }), [COULD_SEND]],
    [
      'no messages at all',
      sound({ ledger: { ...LEDGER, acknowledgedTo: () => 0, published: 0, count: 0 } }),
      [COULD_SEND],
    ],
    ['an answer that was not due', sound({ ledger: { ...LEDGER, violations: 1, violation: ['x'] } }), [IN_ORDER]],
    ['more acknowledged than sent', sound({ ledger: { ...LEDGER, count: 3 } }), [IN_ORDER]],
    [
      'a disturbance that could not be made',
      sound({ failure: { at: 1, what: 'start p1 failed', why: 'x' } }),
      ['every disturbance could be made'],
    ],
  ])('%s is found', (_, evidence, names) => {
    expect(broken(evidence)).toEqual(names)
    expect(judge(evidence).filter(({ unseen }) => unseen)).toEqual([])
  })

  const SEEN = 'all could be looked at'
  test.each<[string, Partial<Evidence>, string[]]>([
    ['the answers', { answers: undefined }, [LOST, ONCE, FAREWELLS, FOREIGN]],
    ['the answers for single devices', { alone: undefined }, [FOREIGN]],
    ['the log', { log: undefined }, [LOST, ONCE, FAREWELLS, BACK, OWNER, ZOMBIE, AHEAD, FOREIGN, POISON]],
    ['the stores', { copies: undefined }, [STORE]],
  ])('without %s what cannot be judged is not called held', (what, without, names) => {
    const invariants = judge({ ...sound(), ...without, missing: [`${what}: x`] })
    expect(invariants.flatMap(({ name, unseen }) => (unseen ? [name] : []))).toEqual(names)
    expect(invariants.flatMap(({ name, held, unseen }) => (held || unseen ? [] : [name]))).toEqual([SEEN])
  })
})

test.each([
  ['a standby', { copiesDue: 2 }, 'of partition 0 only 1 of 2 copies are whole'],
  ['a partition', { partitions: 2 }, 'of partition 1 only 0 of 1 copies are whole'],
  ['all', { copies: [] }, 'of partition 0 only 0 of 1 copies are whole'],
])('stores that lack %s are not called equal to the fold', (_, evidence, told) => {
  const judged = judge(sound(evidence)).filter(({ held }) => !held)
  expect(judged).toMatchObject([{ name: STORE, unseen: true, evidence: expect.stringContaining(told) }])
})

test('where retention removed input that is not what is lost', () => {
  const removed = removedSince([5, 0, 7], [5, 3, 9])
  expect(removed).toEqual(['retention removed 0 to 2 of partition 1', 'retention removed 7 to 8 of partition 2'])
  const input = { devices: new Map(), records: 0, statuses: new Map() }
  const invariants = judge(sound({ removed, input, copies: [{ ...COPY, differing: 1, example: 'x' }] }))
  const unseen = invariants.filter((invariant) => invariant.unseen)
  expect(unseen.map(({ name }) => name)).toEqual([LOST, ONCE, FAREWELLS, STORE, FOREIGN])
  for (const { evidence } of unseen) expect(evidence).toContain(`${removed[0]}, and of 1 more`)
  expect(invariants.every((invariant) => invariant.held || invariant.unseen)).toBe(true)
  // What is not in the answers is lost all the same.
  expect(broken(sound({ removed, answers: new Map() }))).toContain(LOST)
  expect(judge(sound({ removed, answers: new Map() })).find(({ name }) => name === LOST)?.unseen).toBe(false)
})
