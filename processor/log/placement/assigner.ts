import type { Offset } from '../../contract/record.ts'

export interface Candidate {
  /** Unique, even if two processes have one INSTANCE_ID. */
  readonly name: string
  /** Failure domain: a standby prefers another one than its owner's. */
  readonly zone?: string | undefined
  readonly active: readonly number[]
  readonly standby: readonly number[]
  /** Changelog position of each warm copy, held now or left from before. */
  readonly positions?: ReadonlyMap<number, Offset> | undefined
  /** The standbys whose copies have caught up with the changelog and follow it. */
  readonly whole?: readonly number[] | undefined
  /** Its stores cannot be written: it holds nothing while another member can. */
  readonly unfit?: boolean | undefined
}

export interface AssignmentInput {
  readonly members: readonly Candidate[]
  readonly partitions: number
  /** Copies beside the owner's; fewer when there are fewer other members. */
  readonly standbys: number
  /** Cost of each partition, in any unit: among equal members a free partition goes to the one with the least. */
  readonly load?: readonly number[] | undefined
}

export interface Assigned {
  readonly active: readonly number[]
  readonly standby: readonly number[]
}

interface Slot {
  readonly member: Candidate
  readonly active: Set<number>
  readonly standby: Set<number>
  /** By partition, how far the copy here is; -1 without one. */
  readonly places: Float64Array
  /** Cost of the partitions owned here. */
  cost: number
  /** How many partitions of each owner are standbys here. */
  readonly shares: Map<Slot, number>
}

/**
 * Assigns owners and standbys. Pure and deterministic: the order of the members does not matter.
 * - Every partition has one owner; owners' counts differ by one at most, and so do standbys' where zones leave a
 * choice.
 * - A member keeps what it owns, unless balance takes it. That, and free partitions, go to the most caught-up copy
 * among the members with room.
 * - A standby is never on its owner's member. It prefers another zone, then its present member, then a warm copy.
 * - Nothing that is owned moves for load: that is the work of `Balancer`.
 * - Unfit members hold nothing, unless all are unfit.
 */
export function assign(input: AssignmentInput): ReadonlyMap<string, Assigned> {
  const slots = [...fitOf(input.members)]
    .sort((a, b) => (a.name < b.name ? -1 : 1))
    .map((member) => slotOf(member, input.partitions))
  if (slots.length > 0) {
    assignActive(slots, input)
    assignStandbys(slots, input)
  }
  const nothing = input.members.map(({ name }) => [name, { active: [], standby: [] }] as const)
  return new Map<string, Assigned>([
    ...nothing,
    ...slots.map(({ member, active, standby }) => {
      return [member.name, { active: [...active].sort(ascending), standby: [...standby].sort(ascending) }] as const
    }),
  ])
}

export function fitOf<M extends Candidate>(members: readonly M[]): readonly M[] {
  const fit = members.filter(({ unfit }) => unfit !== true)
  return fit.length > 0 ? fit : members
}

function slotOf(member: Candidate, partitions: number): Slot {
  const places = new Float64Array(partitions).fill(-1)
  for (const partition of [...member.active, ...member.standby]) places[partition] = 0
  for (const [partition, position] of member.positions ?? []) places[partition] = position
  return { member, active: new Set(), standby: new Set(), places, cost: 0, shares: new Map() }
}

/** Must be fast for 10,000 partitions and 1,000 members: peers take a leader that holds its event loop for dead. */
function assignActive(slots: readonly Slot[], { partitions, load }: AssignmentInput): void {
  const free = new Set(Array.from({ length: partitions }, (_, i) => i))
  for (const slot of slots) {
    for (const partition of slot.member.active) {
      if (free.delete(partition)) slot.active.add(partition)
    }
  }
  const floor = Math.floor(partitions / slots.length)
  let extra = partitions % slots.length
  // The fullest members keep the remainder where partitions do not divide evenly: so least moves.
  for (const slot of [...slots].sort((a, b) => b.active.size - a.active.size)) {
    const most = extra > 0 && slot.active.size > floor ? floor + 1 : floor
    if (most > floor) extra--
    for (const partition of leastMissed(slot, slots, floor).slice(0, Math.max(0, slot.active.size - most))) {
      slot.active.delete(partition)
      free.add(partition)
    }
  }
  const costOf = (partition: number) => (load === undefined ? 1 : (load[partition] ?? 0))
  for (const slot of slots) for (const partition of slot.active) slot.cost += costOf(partition)
  const hasRoom = (slot: Slot) => slot.active.size < floor || (slot.active.size === floor && extra > 0)
  let open = slots.filter(hasRoom)
  // Partitions with the fewest warm copies choose first, before others take the only one; those with none choose last.
  const warm = new Uint32Array(partitions)
  for (const slot of open) countPlaces(slot, warm, 1)
  const contested = new Set([...free].sort(ascending).filter((partition) => warm[partition] !== 0))
  const others = [...free].sort((a, b) => b - a)
  while (free.size > 0) {
    const partition = fewest(contested, warm) ?? nextIn(others, free)
    const owner = best(open, (a, b) => at(b, partition) - at(a, partition) || a.cost - b.cost) as Slot
    const isLast = owner.active.size === floor && --extra === 0
    owner.active.add(partition)
    owner.cost += costOf(partition)
    free.delete(partition)
    contested.delete(partition)
    if (hasRoom(owner) && !isLast) continue
    for (const slot of open) if (!hasRoom(slot)) countPlaces(slot, warm, -1)
    open = open.filter(hasRoom)
    for (const p of contested) if (warm[p] === 0) contested.delete(p)
  }
}

function countPlaces({ places }: Slot, warm: Uint32Array, by: number): void {
  for (let p = 0; p < places.length; p++) if ((places[p] as number) >= 0) warm[p] = (warm[p] as number) + by
}

/** The first partition with the fewest warm copies. */
function fewest(partitions: Iterable<number>, warm: Uint32Array): number | undefined {
  let found: number | undefined
  for (const p of partitions) if (found === undefined || (warm[p] as number) < (warm[found] as number)) found = p
  return found
}

/** Takes the last of `partitions` that is in `free`. */
function nextIn(partitions: number[], free: ReadonlySet<number>): number {
  for (;;) {
    const partition = partitions.pop() as number
    if (free.has(partition)) return partition
  }
}

/** A member with too many gives away first what is warm elsewhere with room. */
function leastMissed(slot: Slot, slots: readonly Slot[], floor: number): number[] {
  const others = slots.filter((other) => other !== slot && other.active.size < floor)
  const elsewhere = new Set([...slot.active].filter((p) => others.some((other) => at(other, p) >= 0)))
  return [...slot.active].sort((a, b) => Number(elsewhere.has(b)) - Number(elsewhere.has(a)) || b - a)
}

function at({ places }: Slot, partition: number): number {
  return places[partition] as number
}

function assignStandbys(slots: readonly Slot[], { partitions, standbys }: AssignmentInput): void {
  const copies = Math.min(standbys, slots.length - 1)
  const quota = Math.ceil((partitions * copies) / slots.length)
  const owners: Slot[] = []
  for (const slot of slots) for (const partition of slot.active) owners[partition] = slot
  const oneZone = new Set(slots.map(({ member }) => member.zone)).size === 1
  const holders: Slot[][] = Array.from({ length: partitions }, () => [])
  for (const slot of slots) for (const partition of slot.member.standby) holders[partition]?.push(slot)
  for (let copy = 0; copy < copies; copy++) {
    for (const [partition, owner] of owners.entries()) {
      const present = holders[partition] as Slot[]
      const mayStay = (slot: Slot) =>
        canHold(slot, partition) && slot.standby.size < quota && (oneZone || apartFrom(slot, owner))
      // One of the present holders is the best then: in a large group that spares most of the looking.
      const among = present.some(mayStay) ? present : slots
      const holder = holderFor(partition, owner, present, among, quota)
      holder?.standby.add(partition)
      holder?.shares.set(owner, shared(holder, owner) + 1)
    }
  }
  while (evenOut(slots, owners)) continue
}

/** The best member for one more copy: in another zone, then one of the present `holders`, then with a warm copy. */
function holderFor(
  partition: number,
  owner: Slot,
  holders: readonly Slot[],
  slots: readonly Slot[],
  quota: number,
): Slot | undefined {
  let found: Slot | undefined
  let [mostApart, mostStays, mostWarm] = [0, 0, 0]
  for (const slot of slots) {
    if (slot === owner || slot.standby.has(partition)) continue
    const hasRoom = slot.standby.size < quota
    const apart = Number(apartFrom(slot, owner))
    const stays = Number(hasRoom && holders.includes(slot))
    const warm = hasRoom ? at(slot, partition) : -1
    if (found !== undefined) {
      const wish = apart - mostApart || stays - mostStays || warm - mostWarm
      if (wish < 0) continue
      const isWorse = () =>
        shared(slot, owner) - shared(found as Slot, owner) || slot.standby.size - (found as Slot).standby.size
      if (wish === 0 && isWorse() >= 0) continue
    }
    found = slot
    mostApart = apart
    mostStays = stays
    mostWarm = warm
  }
  return found
}

function apartFrom(slot: Slot, owner: Slot): boolean {
  return slot.member.zone !== owner.member.zone
}

/** Fewer partitions of one owner here mean that more members share them when it dies. */
function shared({ shares }: Slot, owner: Slot): number {
  return shares.get(owner) ?? 0
}

function canHold(slot: Slot, partition: number): boolean {
  return !slot.active.has(partition) && !slot.standby.has(partition)
}

/** Moves one standby from a member with most to one with two fewer, over others where it cannot go at once. */
function evenOut(slots: readonly Slot[], owners: readonly Slot[]): boolean {
  const most = best(slots, (a, b) => b.standby.size - a.standby.size) as Slot
  const reached = new Map<Slot, { from: Slot; partition: number } | undefined>([[most, undefined]])
  for (const [slot] of reached) {
    if (slot.standby.size <= most.standby.size - 2) {
      for (let to = slot, step = reached.get(to); step !== undefined; to = step.from, step = reached.get(to)) {
        step.from.standby.delete(step.partition)
        to.standby.add(step.partition)
      }
      return true
    }
    const standby = [...slot.standby].sort(ascending)
    for (const next of slots) {
      if (reached.has(next)) continue
      const partition = standby.find((p) => canMove(owners[p] as Slot, slot, next, p))
      if (partition !== undefined) reached.set(next, { from: slot, partition })
    }
  }
  return false
}

/** Zones come before balance. */
function canMove(owner: Slot, from: Slot, to: Slot, partition: number): boolean {
  if (!canHold(to, partition)) return false
  return apartFrom(to, owner) || !apartFrom(from, owner)
}

/** The first of the best, in the order given. */
function best<T>(items: readonly T[], compare: (a: T, b: T) => number): T | undefined {
  let found: T | undefined
  for (const item of items) if (found === undefined || compare(item, found) < 0) found = item
  return found
}

function ascending(a: number, b: number): number {
  return a - b
}
