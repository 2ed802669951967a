import type { Assigned, Candidate } from './assigner.ts'
import type { Rates } from './balance.ts'

/**
 * A copy may become the owner when it lacks at most this many changelog records, and the input of this many seconds.
 */
const LAG_RECORDS = 1000
const LAG_SECONDS = 5

export interface Deferred {
  readonly assigned: ReadonlyMap<string, Assigned>
  /** By candidate, those of its standbys that it will own once they have caught up. */
  readonly heirs: ReadonlyMap<string, readonly number[]>
}

/**
 * Keeps a partition with its owner while the copy of its next owner lacks much: the next owner, the heir, warms up as
 * a standby first, because the partition would stand still during a restore (KIP-441: warm-up replicas). Pure.
 */
export function deferToHeirs(
  assigned: ReadonlyMap<string, Assigned>,
  members: readonly Candidate[],
  rates: Rates | undefined,
): Deferred {
  const held = new Map(
    [...assigned].map(([name, { active, standby }]) => {
      return [name, { active: new Set(active), standby: new Set(standby), heir: [] as number[] }]
    }),
  )
  const nextOf = new Map<number, Candidate>()
  for (const member of members)
    for (const partition of assigned.get(member.name)?.active ?? []) nextOf.set(partition, member)
  for (const owner of members) {
    for (const partition of owner.active) {
      const next = nextOf.get(partition)
      if (next === undefined || next.active.includes(partition) || lacksLittle(partition, owner, next, rates)) continue
      const [from, to] = [held.get(owner.name), held.get(next.name)]
      to?.active.delete(partition)
      to?.standby.add(partition)
      to?.heir.push(partition)
      from?.active.add(partition)
      from?.standby.delete(partition)
    }
  }
  return {
    assigned: new Map(
      [...held].map(([name, { active, standby }]) => {
        return [name, { active: [...active].sort(ascending), standby: [...standby].sort(ascending) }]
      }),
    ),
    heirs: new Map([...held].map(([name, { heir }]) => [name, heir.sort(ascending)])),
  }
}

/** Whether the copy of `next` has nearly caught up with the owner's. */
export function lacksLittle(
  partition: number,
  owner: Candidate | undefined,
  next: Candidate,
  rates: Rates | undefined,
): boolean {
  if (next.whole?.includes(partition) === true) return true
  const slack = LAG_RECORDS + LAG_SECONDS * (rates?.[partition] ?? 0)
  return (next.positions?.get(partition) ?? 0) >= (owner?.positions?.get(partition) ?? 0) - slack
}

function ascending(a: number, b: number): number {
  return a - b
}
