import { randomUUID } from 'node:crypto'
import { groupRecordBytes } from '../../processor/log/kafka/group/leader.ts'
import { clientIdOf, encodeAssignment, encodeSubscription } from '../../processor/log/kafka/group/membership.ts'
import { pingTargets } from '../../processor/log/kafka/group/peers.ts'
import { topicNames } from '../../processor/log/kafka/topics.ts'
import type { Assigned, Candidate } from '../../processor/log/placement/assigner.ts'
import { Balancer } from '../../processor/log/placement/balance.ts'
import type { BenchOptions } from './bench.ts'
import type { Figure } from './figure.ts'

const FULL = { members: 1_000, partitions: 10_000, restarts: 20 }
const QUICK = { members: 100, partitions: 1_000, restarts: 5 }
const STANDBYS = 1
/** Changelog position of every copy. */
const POSITION = 1_000_000_000
/** Of `__consumer_offsets`, by default. */
const MAX_MESSAGE_BYTES = 1_048_588

export const PLACEMENT_PARTS = ['assign']

/** What assignment costs in a large group: its time, the partitions that change their owner, and the group's record. */
export async function measurePlacement({ quick, report }: BenchOptions): Promise<void> {
  const { members: count, partitions, restarts } = quick ? QUICK : FULL
  const balancer = new Balancer(partitions, STANDBYS)
  const group = Array.from({ length: count }, (_, i): Candidate => ({ name: nameOf(i), active: [], standby: [] }))
  const first = assign(balancer, group)
  const settled = holding(group, first.assigned)
  const again = assign(balancer, settled)
  const takeover = assign(balancer, settled.slice(1))

  let members = settled
  let [moves, ms] = [0, 0]
  for (let i = 0; i < restarts; i++) {
    const leaving = members[i] as Candidate
    const without = assign(
      balancer,
      members.filter((member) => member !== leaving),
    )
    const rest = holding(
      members.filter((member) => member !== leaving),
      without.assigned,
    )
    // It comes back with its copies as warm as they were.
    const back = [...rest.slice(0, i), { ...leaving, active: [], standby: [] }, ...rest.slice(i)]
    const returned = assign(balancer, back)
    moves += without.moves + returned.moves
    ms += without.ms + returned.ms
    members = holding(back, returned.assigned)
  }
  const size = `${count.toLocaleString('en-US')} processors, ${partitions.toLocaleString('en-US')} partitions`
  const figures: Figure[] = [
    { what: `placement: ${size}, first assignment`, value: first.ms, unit: 'ms' },
    {
      what: 'placement: assignment when nobody came or went',
      value: again.ms,
      unit: 'ms',
      note: `${again.moves} moves`,
    },
    {
      what: 'placement: one processor dies',
      value: takeover.moves,
      unit: 'partitions move',
      limit: { atMost: Math.ceil(partitions / count) },
      note: `${Math.round(takeover.ms)} ms`,
    },
    {
      what: 'placement: rolling restart, for each processor',
      value: moves / restarts,
      unit: 'partitions move',
      note: `${Math.round(ms / restarts)} ms for its two assignments; of ${restarts} processors`,
    },
    {
      what: "placement: Kafka's record of the group",
      value: recordBytes(settled) / 1024,
      unit: 'KiB',
      limit: { atMost: MAX_MESSAGE_BYTES / 1024 },
    },
  ]
  report(figures)
}

function nameOf(i: number): string {
  return `tidemark-processor-${i}`
}

function assign(balancer: Balancer, members: readonly Candidate[]) {
  const began = performance.now()
  const { assigned } = balancer.assign(members, [])
  const ms = performance.now() - began
  const owners = new Map(members.flatMap(({ name, active }) => active.map((partition) => [partition, name])))
  let moves = 0
  for (const [name, { active }] of assigned) {
    for (const partition of active) if (owners.size > 0 && owners.get(partition) !== name) moves++
  }
  return { assigned, ms, moves }
}

/** The members once they hold what they were assigned. */
function holding(members: readonly Candidate[], assigned: ReadonlyMap<string, Assigned>): Candidate[] {
  return members.map((member) => {
    const { active, standby } = assigned.get(member.name) ?? { active: [], standby: [] }
    const positions = new Map([...(member.positions?.keys() ?? []), ...active, ...standby].map((p) => [p, POSITION]))
    return { ...member, active, standby, positions, whole: standby }
  })
}

function recordBytes(members: readonly Candidate[]): number {
  const names = topicNames('tidemark')
  const known = members.map(({ name: instance, active, standby, positions, whole = [] }, i) => {
    const host = `10.0.${i >> 8}.${i % 256}`
    const endpoint = `${host}:9091`
    const memberId = `${clientIdOf({ instance, endpoint })}-${randomUUID()}`
    const subscription = {
      instance,
      endpoint,
      since: 41,
      active,
      standby,
      positions: Object.fromEntries(positions ?? []),
      whole,
    }
    return {
      memberId,
      instance,
      endpoint,
      host,
      since: 41,
      active,
      standby,
      memberMetadata: encodeSubscription(names, subscription),
    }
  })
  const watched = pingTargets(known)
  const assignments = known.map((member) => {
    const peers = (watched.get(member) ?? []).map(({ memberId, endpoint, instance, since }) => ({
      memberId,
      endpoint,
      instance,
      since,
    }))
    const { memberId, active, standby } = member
    return { memberId, memberAssignment: encodeAssignment(names, { active, standby, moving: [], heir: [], peers }) }
  })
  return groupRecordBytes(known, assignments)
}
