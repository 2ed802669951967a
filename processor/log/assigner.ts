import type { Offset } from '../contract/record.ts'

export interface Candidate {
  readonly instance: string
  /** Failure domain; a standby goes to another one than its owner's where there is one. */
  readonly zone?: string | undefined
  /** What the member holds now. */
  readonly active: readonly number[]
  readonly standby: readonly number[]
  /** Changelog position of each warm copy it has, held now or left from before. */
  readonly positions?: ReadonlyMap<number, Offset> | undefined
  /** Those of its standbys that hold all that the changelog held when they began, and follow it. */
  readonly whole?: readonly number[] | undefined
}

export interface AssignmentInput {
  readonly members: readonly Candidate[]
  readonly partitions: number
  /** Copies beside the owner's. With fewer other members than that there are fewer. */
  readonly standbys: number
  /** Cost of each partition, in any unit: among members alike otherwise, what is free goes to the one with the least. */
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
}

/**
 * Who holds what. Pure and deterministic: the same input, in any order of the members, gives the same answer.
 *
 * - Every partition has one owner; owners' counts differ by one at most, and so do standbys' where zones leave a choice.
 * - What a member owns stays, but for what balance takes; that goes to, and what is free goes to, the most caught-up copy
 *   among the members with room.
 * - Standbys are never on their owner; they prefer another zone, then where they are, then a warm copy.
 * - What somebody owns never moves for the sake of load: that is for `Balancer`.
 */
export function assign(input: AssignmentInput): ReadonlyMap<string, Assigned> {
  const slots = [...input.members]
    .sort((a, b) => (a.instance < b.instance ? -1 : 1))
    .map((member): Slot => ({ member, active: new Set(), standby: new Set() }))
  if (slots.length > 0) {
    assignActive(slots, input)
    assignStandbys(slots, input)
  }
  return new Map(
    slots.map(({ member, active, standby }) => [
      member.instance,
      { active: [...active].sort(ascending), standby: [...standby].sort(ascending) },
    ]),
  )
}

function assignActive(slots: readonly Slot[], { partitions, load }: AssignmentInput): void {
  const free = new Set(Array.from({ length: partitions }, (_, i) => i))
  for (const slot of slots) {
    for (const partition of slot.member.active) {
      if (free.delete(partition)) slot.active.add(partition)
    }
  }
  const floor = Math.floor(partitions / slots.length)
  let extra = partitions % slots.length
  // Who holds most may keep one more where the partitions do not divide evenly: so least moves.
  for (const slot of [...slots].sort((a, b) => b.active.size - a.active.size)) {
    const most = extra > 0 && slot.active.size > floor ? floor + 1 : floor
    if (most > floor) extra--
    for (const partition of leastMissed(slot, slots, floor).slice(0, Math.max(0, slot.active.size - most))) {
      slot.active.delete(partition)
      free.add(partition)
    }
  }
  const hasRoom = (slot: Slot) => slot.active.size < floor || (slot.active.size === floor && extra > 0)
  while (free.size > 0) {
    const open = slots.filter(hasRoom)
    // Those with the fewest warm places left choose first, lest others take the only one; those with none choose last.
    const places = (p: number) => open.filter((slot) => position(slot, p) >= 0).length || Number.MAX_SAFE_INTEGER
    const choices = [...free].map((p) => [p, places(p)] as const)
    const [partition] = best(choices, (a, b) => a[1] - b[1] || a[0] - b[0]) as readonly [number, number]
    const owner = best(open, (a, b) => {
      return position(b, partition) - position(a, partition) || cost(a, load) - cost(b, load)
    }) as Slot
    if (owner.active.size === floor) extra--
    owner.active.add(partition)
    free.delete(partition)
  }
}

/** What a member with too much gives away first: what is warm elsewhere with room. */
function leastMissed(slot: Slot, slots: readonly Slot[], floor: number): number[] {
  const others = slots.filter((other) => other !== slot && other.active.size < floor)
  const elsewhere = (partition: number) => Math.max(-1, ...others.map((other) => position(other, partition)))
  return [...slot.active].sort((a, b) => Number(elsewhere(b) >= 0) - Number(elsewhere(a) >= 0) || b - a)
}

/** How far the copy here is; -1 without one. */
function position({ member }: Slot, partition: number): number {
  const warm = member.positions?.get(partition)
  if (warm !== undefined) return warm
  return member.standby.includes(partition) || member.active.includes(partition) ? 0 : -1
}

function cost({ active }: Slot, load: readonly number[] | undefined): number {
  if (load === undefined) return active.size
  let sum = 0
  for (const partition of active) sum += load[partition] ?? 0
  return sum
}

function assignStandbys(slots: readonly Slot[], { partitions, standbys }: AssignmentInput): void {
  const copies = Math.min(standbys, slots.length - 1)
  const quota = Math.ceil((partitions * copies) / slots.length)
  for (let copy = 0; copy < copies; copy++) {
    for (let partition = 0; partition < partitions; partition++) {
      const owner = slots.find((slot) => slot.active.has(partition)) as Slot
      const apart = (slot: Slot) => Number(apartFrom(slot, owner))
      const stays = (slot: Slot) => Number(slot.member.standby.includes(partition) && slot.standby.size < quota)
      const warm = (slot: Slot) => (slot.standby.size < quota ? position(slot, partition) : -1)
      const holder = best(
        slots.filter((slot) => canHold(slot, partition)),
        (a, b) => {
          const wish = apart(b) - apart(a) || stays(b) - stays(a) || warm(b) - warm(a)
          return wish || shared(a, owner) - shared(b, owner) || a.standby.size - b.standby.size
        },
      )
      holder?.standby.add(partition)
    }
  }
  while (evenOut(slots)) continue
}

function apartFrom(slot: Slot, owner: Slot): boolean {
  return slot.member.zone !== owner.member.zone
}

/** The fewer of one owner's partitions are here, the more members share them when it dies. */
function shared(slot: Slot, owner: Slot): number {
  let count = 0
  for (const partition of slot.standby) if (owner.active.has(partition)) count++
  return count
}

function canHold(slot: Slot, partition: number): boolean {
  return !slot.active.has(partition) && !slot.standby.has(partition)
}

/** Moves one standby from a member with most to one with two fewer, over others where it cannot go at once. */
function evenOut(slots: readonly Slot[]): boolean {
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
    for (const next of slots) {
      if (reached.has(next)) continue
      const partition = [...slot.standby].sort(ascending).find((p) => canMove(slots, slot, next, p))
      if (partition !== undefined) reached.set(next, { from: slot, partition })
    }
  }
  return false
}

/** Zones come before balance. */
function canMove(slots: readonly Slot[], from: Slot, to: Slot, partition: number): boolean {
  if (!canHold(to, partition)) return false
  const owner = slots.find((slot) => slot.active.has(partition)) as Slot
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
