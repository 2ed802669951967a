import { TidemarkError } from '../../processor/contract/errors.ts'
import type { Copy, Owner, OwnerMap, PartitionInfo } from '../../processor/contract/query.ts'
import { LateError } from './late.ts'

/** What members say of the copies they hold. */
export interface Copies {
  readonly all: readonly Copy[]
  /** A member has not answered in time, and may hold further ones. */
  readonly late: boolean
}

/** Asks every member of `map`. One that does not answer leaves its copies out. */
export async function copiesOf(map: OwnerMap, ask: (member: Owner) => Promise<Copy[]>): Promise<Copies> {
  const members = new Map<string, Owner>()
  for (const { active, standbys } of map.values()) {
    for (const owner of active === undefined ? standbys : [active, ...standbys]) members.set(owner.endpoint, owner)
  }
  let late = false
  const answers = Array.from(members.values(), async (member) => {
    try {
      return await ask(member)
    } catch (error) {
      if (!(error instanceof TidemarkError)) throw error
      late ||= error instanceof LateError
      return []
    }
  })
  return { all: (await Promise.all(answers)).flat(), late }
}

/** Every partition is there, with or without an owner. */
export function partitionsOf(map: OwnerMap, partitions: number, copies: readonly Copy[]): PartitionInfo[] {
  return Array.from({ length: partitions }, (_, partition) => {
    const here = copies.filter((copy) => copy.partition === partition)
    const active = map.get(partition)?.active?.instance
    return {
      partition,
      owner: ownerAmong(here, active),
      standbys: here.filter((copy) => copy.role === 'standby'),
    }
  })
}

/** Two members may hold themselves for the owner while a partition moves; then the map decides, then who is further. */
function ownerAmong(copies: readonly Copy[], active: string | undefined): Copy | undefined {
  const owners = copies.filter((copy) => copy.role === 'owner')
  return (
    owners.find((copy) => copy.instance === active) ?? owners.sort((a, b) => b.changelogOffset - a.changelogOffset)[0]
  )
}
