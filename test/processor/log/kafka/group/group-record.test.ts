import { randomUUID } from 'node:crypto'
import { inflateRawSync } from 'node:zlib'
import pino from 'pino'
import { Registry } from 'prom-client'
import { expect, test } from 'vitest'
import { ConfigurationError } from '../../../../../processor/contract/errors.ts'
import type { ClaimContext } from '../../../../../processor/log/kafka/claim/claim-context.ts'
import {
  groupRecordBytes,
  KafkaLeader,
  type MemberAssignment,
} from '../../../../../processor/log/kafka/group/leader.ts'
import {
  clientIdOf,
  decodeAssignment,
  encodeSubscription,
  type Peer,
  type Subscription,
} from '../../../../../processor/log/kafka/group/membership.ts'
import { KafkaMetrics } from '../../../../../processor/log/kafka/health.ts'
import type { Joined } from '../../../../../processor/log/kafka/protocol/broker.ts'
import { WireReader } from '../../../../../processor/log/kafka/protocol/wire.ts'
import { topicNames } from '../../../../../processor/log/kafka/topics.ts'

const PARTITIONS = 1024
const KIBIBYTE = 1024
/** Kafka's own max.message.bytes. */
const MOST_BYTES = 1_048_588
const names = topicNames('tidemark')
const HOST = 'tidemark-processor.production.svc.cluster.local'

interface Named {
  readonly memberId: string
  readonly subscription: Subscription
}

/** Of a group of which every name has 84 characters. */
function member(i: number, more: Partial<Subscription> = {}): Named {
  const instance = `tidemark-processor-${i}.`.padEnd(84, 'some-region-')
  const endpoint = `tidemark-processor-${i}.${HOST}:9091`
  const nothing = { since: 41, active: [], standby: [], positions: {}, whole: [] }
  const subscription = { instance, endpoint, zone: `zone-${i % 3}`, ...nothing, ...more }
  return { memberId: `${clientIdOf(subscription)}-${randomUUID()}`, subscription }
}

function groupOf(size: number): Named[] {
  return Array.from({ length: size }, (_, i) => member(i))
}

/** What the group's members join with after `assignments`: their share, and a warm copy of all that is theirs. */
function settled(members: readonly Named[], assignments: readonly MemberAssignment[]): Named[] {
  return members.map(({ memberId, subscription }, i) => {
    const { active, standby } = decodeAssignment(names, (assignments[i] as MemberAssignment).memberAssignment)
    const positions = Object.fromEntries([...active, ...standby].map((p) => [p, 1_234_567_890]))
    return { memberId, subscription: { ...subscription, active, standby, positions, whole: standby } }
  })
}

function joined(members: readonly Named[]): Joined {
  return {
    generationId: 42,
    leaderId: '',
    memberId: '',
    members: members.map(({ memberId, subscription }) => {
      return { memberId, memberMetadata: encodeSubscription(names, subscription) }
    }),
  }
}

/** Of a Kafka that tells that it takes records of `most` bytes; undefined where it tells nobody. */
function leaderBeside(most: number | undefined, write = (_line: string) => {}, partitions = PARTITIONS): KafkaLeader {
  const described = { resources: [{ configEntries: [{ configName: 'max.message.bytes', configValue: String(most) }] }] }
  const requests = { describeConfigs: () => (most === undefined ? Promise.reject(new Error('not told')) : described) }
  const cluster = {
    anyConnection: () => Promise.resolve({ requests }),
    retry: (_: number, __: undefined, attempt: () => Promise<unknown>) => attempt(),
  }
  const identity = { partitions }
  const claims = { cluster, names, group: 'tidemark', identity, logger: pino({}, { write }) }
  return new KafkaLeader(claims as unknown as ClaimContext, 1, 30_000, new KafkaMetrics(new Registry()))
}

/** The peers as they are encoded. */
function rawPeers({ memberAssignment }: MemberAssignment): object[] {
  const reader = new WireReader(memberAssignment)
  reader.int16()
  reader.array(() => [reader.string(), reader.array(() => reader.int32())])
  return JSON.parse(inflateRawSync(reader.bytesOrNull() as Buffer).toString()).peers
}

function peersOf({ memberAssignment }: MemberAssignment): Peer[] {
  return [...decodeAssignment(names, memberAssignment).peers].sort((a, b) => (a.memberId < b.memberId ? -1 : 1))
}

test('of 200 members with long names and 1,024 partitions Kafka keeps a record far smaller than it takes', async () => {
  const members = groupOf(200)
  const leader = leaderBeside(undefined)
  const first = await leader.assign(joined(members))
  const again = settled(members, first)
  const assignments = await leader.assign(joined(again))
  expect(groupRecordBytes(joined(again).members, assignments)).toBeLessThan(640 * KIBIBYTE)
  for (const assignment of assignments) expect(peersOf(assignment)).toHaveLength(7)
})

test('of 1,000 members and 10,000 partitions Kafka keeps a record that it takes, and only what a dead one had moves', async () => {
  const members = Array.from({ length: 1_000 }, (_, i) => {
    const instance = `tidemark-processor-${i}`
    return member(i, { instance, endpoint: `10.0.${i >> 8}.${i % 256}:9091` })
  })
  const leader = leaderBeside(MOST_BYTES, undefined, 10_000)
  const before = settled(members, await leader.assign(joined(members)))
  expect(groupRecordBytes(joined(before).members, await leader.assign(joined(before)))).toBeLessThan(MOST_BYTES)
  const [dead, ...alive] = before as [Named, ...Named[]]
  const after = settled(alive, await leader.assign(joined(alive)))
  const gained = after.flatMap(({ subscription: { active } }, i) => {
    return active.filter((partition) => !alive[i]?.subscription.active.includes(partition))
  })
  expect(gained.sort((a, b) => a - b)).toEqual(dead.subscription.active)
})

test('the leader of a group that is too large for one record ends, and says why', async () => {
  const members = groupOf(200)
  const leader = leaderBeside(200_000)
  await expect(leader.assign(joined(members))).rejects.toBeInstanceOf(ConfigurationError)
  await expect(leader.assign(joined(members))).rejects.toThrow(
    /^group tidemark: Kafka keeps its 200 members in one record, which takes \d{6} bytes; max\.message\.bytes of __consumer_offsets is 200000: raise it,/,
  )
  const huge = groupOf(1_500)
  await expect(leaderBeside(MOST_BYTES).assign(joined(huge))).rejects.toThrow(`is ${MOST_BYTES}: raise it,`)
  await expect(leaderBeside(4 * MOST_BYTES).assign(joined(huge))).resolves.toHaveLength(1_500)
  // Somebody may have raised it: Kafka decides.
  await expect(leaderBeside(undefined).assign(joined(huge))).resolves.toHaveLength(1_500)
})

test('a member is told of a peer only what the id of the peer does not tell', async () => {
  const members = [member(0), member(1), member(2)]
  const [told] = await leaderBeside(undefined).assign(joined(members))
  const peers = members.map(({ memberId, subscription: { instance, endpoint, since } }): Peer => {
    return { memberId, instance, endpoint, since }
  })
  expect(rawPeers(told as MemberAssignment)[0]).not.toHaveProperty('endpoint')
  expect(peersOf(told as MemberAssignment)).toEqual([peers[1], peers[2]])
})

test('a peer whose id does not tell its owner is told whole', async () => {
  const members = [member(0), { ...member(1), memberId: `consumer-${randomUUID()}` }]
  const [told] = await leaderBeside(undefined).assign(joined(members))
  expect(peersOf(told as MemberAssignment)).toMatchObject([{ endpoint: `tidemark-processor-1.${HOST}:9091` }])
})

test('of many with one name each but the first is told of one to whom it yields, whomever it watches', async () => {
  const { instance } = member(0).subscription
  const namesakes = Array.from({ length: 100 }, (_, i) => ({ ...member(i + 100, { instance, since: 100 - i }) }))
  const assignments = await leaderBeside(undefined).assign(joined([...groupOf(100), ...namesakes.slice(0, 99)]))
  const lists = assignments.slice(100).map(peersOf)
  for (const [i, peers] of lists.entries()) {
    const stay = peers.filter((peer) => peer.instance === instance && Number(peer.since) < 100 - i)
    if (i < 98) expect(stay.length).toBeGreaterThan(0)
    expect(peers.length).toBeLessThanOrEqual(8 + 8)
  }
})

test('the log names the processors that partitions wait for, and by their ids only those with one name', async () => {
  const lines: string[] = []
  const leader = leaderBeside(undefined, (line) => lines.push(line))
  const active = Array.from({ length: PARTITIONS }, (_, i) => i)
  const owner = member(0, { active, positions: Object.fromEntries(active.map((partition) => [partition, 1_000_000])) })
  const heir = member(1)
  const instance = 'back-again'
  const [before, after] = [member(2, { instance }), member(3, { instance })]
  await leader.assign(joined([owner, heir, before, after]))
  const [{ heirs }] = lines.map((line) => JSON.parse(line)).filter((line) => 'heirs' in line)
  const ids = [before, after].map(({ memberId }) => `${instance} ${memberId}`)
  expect(Object.keys(heirs).sort()).toEqual([...ids, heir.subscription.instance].sort())
})
