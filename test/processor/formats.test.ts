import { inflateRawSync } from 'node:zlib'
import { MemoryLevel } from 'memory-level'
import pino from 'pino'
import { RocksLevel } from 'rocksdb-level'
import { describe, expect, it, vi } from 'vitest'
import { Positions } from '../../api/changes/resume.ts'
import { encodeCursor } from '../../api/search/fleet-search.ts'
import { type Order, parseOrder, sortKey } from '../../processor/contract/order.ts'
import { connectivityRecord, HEADER_METRIC, HEADER_WILL, type NewRecord } from '../../processor/contract/record.ts'
import { writeRecord } from '../../processor/contract/write.ts'
import type { EmbeddedLog, EmbeddedLogOptions } from '../../processor/log/embedded/embedded-log.ts'
import { Arena, BatchBuilder, BatchReader } from '../../processor/log/embedded/record-batch.ts'
import { encodePosition, withCommitHeader } from '../../processor/log/kafka/claim/position.ts'
import { clientIdOf, encodeAssignment, encodeSubscription } from '../../processor/log/kafka/group/membership.ts'
import { topicNames } from '../../processor/log/kafka/topics.ts'
import { HEADER_DEVICES, HEADER_INPUT } from '../../processor/partition/commit.ts'
import { decidedHeader } from '../../processor/partition/waiters.ts'
import { parseQuery } from '../../processor/search/language/parser.ts'
import type { Database } from '../../processor/store/level-store.ts'
import { LevelStores } from '../../processor/store/level-stores.ts'
import { TestMember } from '../contract/log-member.ts'
import { encodeStatus } from '../status-model.ts'
import { folder, openLog } from './log/embedded/folder.ts'

type Held = readonly [what: string, made: () => unknown, literal: unknown]

/** What outlives the program that wrote it, or is read by one of another version: programs in use have written these. */
function held(where: string, whatToDo: string, rows: readonly Held[]): void {
  describe(`${where}: to change it, ${whatToDo}`, () => {
    it.each(rows)('%s', async (_, made, literal) => expect(await made()).toEqual(literal))
  })
}

const AT = '2026-11-24T10:00:00.000Z'
const IDS = { telemetry: 'ti', status: 'si' }
/** The bytes before the user data, and the user data, which stands after its length and is deflated. */
function inflated(bytes: Buffer): string {
  for (let at = bytes.length - 4; ; at--) {
    if (bytes.readUInt32BE(at) !== bytes.length - at - 4) continue
    return bytes.subarray(0, at).toString('latin1') + inflateRawSync(bytes.subarray(at + 4)).toString()
  }
}

const OWNER = { instance: 'one', endpoint: 'h:1' }
const MEMBER_ID = 'tidemark-one@h:1-01234567-89ab-cdef-0123-456789abcdef'
const names = topicNames('t')

function record(key: string | null, value: string | null, headers?: Record<string, string>): NewRecord {
  return { key, value: value === null ? null : Buffer.from(value), timestamp: 1000, headers }
}

/** The value and the headers. */
function told({ value, headers }: NewRecord): unknown[] {
  return [value === null ? null : Buffer.from(value).toString(), headers]
}

const STATUS =
  `{"deviceId":"d","rev":2,"reported":{"t":{"value":21.5,"at":"${AT}"}},` +
  `"connectivity":{"state":"online","since":"${AT}","reason":"connected","session":7},` +
  `"firstSeenAt":"${AT}","lastSeenAt":"${AT}","counters":{"messages":2,"late":0,"duplicates":0,"skewed":0},` +
  `"sequence":{"seen":[[1,2]],"session":7,"at":"${AT}"},"attributes":{"site":"k1"}}`

/** All that is in the folder of a log after `act`. */
async function inFolder(act: (log: EmbeddedLog) => Promise<void>, options: Partial<EmbeddedLogOptions>) {
  const path = await folder()
  const log = await openLog(path, { now: () => 2000, ...options })
  await act(log)
  await log[Symbol.asyncDispose]()
  const db = new RocksLevel<Buffer, Buffer>(path, { keyEncoding: 'buffer', valueEncoding: 'buffer' })
  const entries = await db.iterator().all()
  await db.close()
  const { cluster, telemetry, status } = log.identity
  return entries.map(([key, value]) => {
    if (key.length === 12) return `${key.toString('hex')} ${value.toString('hex')}`
    return `${key.toString()} ${value.toString().replace(cluster, 'C').replace(telemetry, 'T').replace(status, 'S')}`
  })
}

async function processSome(log: EmbeddedLog): Promise<void> {
  await log.append('telemetry', [record('d', '1', { m: 'x' }), record(null, '22')])
  const member = new TestMember('m').join(log)
  const claim = await vi.waitUntil(() => member.claims.get(0))
  await claim.commit({ changelog: [record('d', 'a'), record('e', 'b')], deadLetters: [record('d', 'z')], next: 1 })
  await claim.commit({ changelog: [record('d', null)], deadLetters: [], next: 2 })
  await log.tidy()
}

/** Of two records the second is kept, a tombstone, with the time at which it may go. */
function compacted(): string {
  const reader = new BatchReader(new Arena(1024).encode([record('d', '1'), record('d', null)], 0, 2, 512), 7)
  const builder = new BatchBuilder(7, 64)
  while (reader.next()) if (reader.tombstone) builder.add(reader, 3000)
  builder.cover(reader.end)
  return builder.finish().toString('hex')
}

/** All that a database has of a store of one device. */
async function stored() {
  const db = new MemoryLevel<string, Buffer>({ keyEncoding: 'utf8', valueEncoding: 'buffer' })
  const identity = { cluster: 'c', ...IDS, partitions: 8 }
  await using stores = await LevelStores.open(db as unknown as Database, {
    identity,
    logger: pino({ level: 'silent' }),
    indexed: false,
  })
  const store = await stores.store(3)
  await store.commit(new Map([['d', Buffer.from('x')]]), { input: 5, changelog: 9, whole: true, since: 1000 }, 1)
  return (await db.iterator().all()).map(([key, value]) => `${key} ${value.toString()}`)
}

held('the folder of the embedded log', 'raise FORMAT in embedded/storage.ts, VERSION for a batch, and read the old', [
  [
    'batches, the end of compaction, identity, and where a partition stands (epoch, input, end of the changelog)',
    () => inFolder(processSome, { compaction: { minDirtyBytes: 0 } }),
    [
      '626400000000000000000000 0101000000010000000000000000408f4011000000000000000000000000408f40030100647a',
      '627300000000000000000000 0102000000020000000000000000408f4011000000000000000000000000408f40030100646111000000010000000000000000408f400301006562',
      '627300000000000000000002 0101000000010000000000000000408f4010000000000000000000000000408f4001010064',
      '627400000000000000000000 0102000000020000000000000000408f401a000000000000000000000000408f40070100640101006d01000000783111000000010000000000000000408f400200003232',
      '637300000000000000000000 00000000000000400000000000804d40',
      'meta {"format":1,"cluster":"C","telemetry":"T","status":"S","partitions":1}',
      '707400000000000000000000 000000000000f03f00000000000000400000000000000840',
    ],
  ],
  [
    'a segment (end, bytes, newest)',
    () => inFolder((log) => log.append('telemetry', [record('d', '1')]), { segmentBytes: 1 }),
    [
      '627400000000000000000000 0101000000010000000000000000408f4011000000000000000000000000408f400301006431',
      'meta {"format":1,"cluster":"C","telemetry":"T","status":"S","partitions":1}',
      '737400000000000000000000 000000000000f03f00000000000043400000000000408f40',
    ],
  ],
  [
    'a compacted batch',
    compacted,
    '0101000000020000000000000000408f4018000000010000000000000000408f40090100000000000070a74064',
  ],
])

held('the folder of a store', 'have Meta in level.ts say so, and read the old or wipe it', [
  [
    'a device, and the checkpoint',
    stored,
    [
      'd00003:d x',
      'm00003 {"identity":{"cluster":"c","telemetry":"ti","status":"si","partitions":8},"input":5,"changelog":9,"whole":true,"since":1000,"generation":1,"count":1}',
    ],
  ],
])

held('what Kafka keeps', 'read the old as well, and write it until no process of the version before is left', [
  ['the status', () => encodeStatus(JSON.parse(STATUS)).toString(), STATUS],
  [
    'metadata of an offset',
    () => encodePosition({ ...IDS, changelogEnd: 20, epoch: 3, partitions: 8 }),
    '20 ti si 3 8',
  ],
  [
    'headers of the last record of a commit',
    () => [HEADER_INPUT, HEADER_DEVICES, withCommitHeader([record('d', 'x')], 7, IDS, 'g').map(told)],
    ['input', 'devices', [['x', { position: '7 ti g' }]]],
  ],
  [
    'the header of decided writes',
    () => decidedHeader([4, 5].map((offset) => ({ offset, outcome: offset === 4 ? 'applied' : 'stale' }))),
    { decided: '4:applied,5:stale' },
  ],
  ['headers of a message', () => [HEADER_METRIC, HEADER_WILL], ['metric', 'will']],
  [
    'a connection',
    () => told(connectivityRecord('d', { state: 'online', reason: 'connected', session: 7 }, 1000)),
    ['{"state":"online","reason":"connected","session":7}', { kind: 'connectivity' }],
  ],
  [
    'a write of attributes',
    () =>
      told(
        writeRecord(
          'd',
          { kind: 'attributes', operation: 'merge', attributes: { a: 1 }, ifMatch: ['2', `2-${AT}`] },
          0,
        ),
      ),
    ['{"a":1}', { kind: 'attributes', operation: 'merge', 'if-match': `2,2-${AT}` }],
  ],
  [
    'a deletion',
    () => told(writeRecord('d', { kind: 'deletion', ifMatch: [] }, 0)),
    [null, { kind: 'deletion', 'if-match': '' }],
  ],
  ['how the id of a member begins', () => clientIdOf(OWNER), 'tidemark-one@h:1'],
  [
    'what a member tells the group',
    () => {
      const copies = { active: [1], standby: [2], positions: { 2: 9 }, whole: [2] }
      return inflated(encodeSubscription(names, { ...OWNER, zone: 'z', since: 4, ...copies, unfit: true }))
    },
    '\0\0\0\0\0\x02\0\x0bt.telemetry\0\x08t.status' +
      '{"instance":"one","endpoint":"h:1","zone":"z","since":4,"active":[1],"standby":[2],"positions":{"2":9},"whole":[2],"unfit":true}',
  ],
  [
    'what the leader tells a member',
    () => {
      const peers = [{ memberId: MEMBER_ID, ...OWNER, since: 4 }]
      return inflated(encodeAssignment(names, { active: [1], standby: [2], moving: [1], heir: [2], peers }))
    },
    '\0\0\0\0\0\x02\0\x0bt.telemetry\0\0\0\x01\0\0\0\x01\0\x08t.status\0\0\0\x01\0\0\0\x02' +
      `{"peers":[{"memberId":"${MEMBER_ID}","since":4}],"moving":[1],"heir":[2]}`,
  ],
])

held('what clients keep', 'know that who comes back with an old one is refused, or begins anew', [
  [
    'a cursor',
    () => encodeCursor({ key: sortKey(5), deviceId: 'd' }, parseQuery('rev:5'), parseOrder('-rev') as Order),
    'MjowMTc1YzllZTQwZDZiZDI4OltbMCw1XSwiZCJd',
  ],
  [
    'the id of an event',
    () => new Positions('s', 2).encode({ offsets: [40, undefined], atSeconds: 1000 }),
    '04cg5gf.1efdzqs.rs.14.',
  ],
])
