import { type Assigned, assign, type Candidate, fitOf } from './assigner.ts'
import { type Deferred, deferToHeirs, lacksLittle } from './heirs.ts'

/** A partition that changes its owner to even the load. */
export interface Move {
  readonly partition: number
  readonly from: string
  readonly to: string
}

/** A member's partitions in a stable group. */
export interface Held {
  /** See Candidate. */
  readonly name: string
  readonly active: readonly number[]
  readonly standby: readonly number[]
}

/** Records per second of each partition, over one span of time. */
export type Rates = readonly number[]

/** A member is hot when its load is this multiple of the mean… */
const HOT = 1.3
/** …and at least this many records per second: below, a move costs more than it gives. */
const MIN_HOT_RATE = 1000
/** Moves must lower the hot member's load by this share, and leave the other member below that as well. */
const MIN_GAIN = 0.2
/** The member must be hot in this many spans: a burst is over before a move pays. */
const MIN_SPANS = 4

/**
 * Moves that even the load: none, one partition, or a swap, so that counts stay even. Moves to existing copies come
 * first, then those that even most. Pure and deterministic.
 */
function balance(
  members: readonly Held[],
  spans: readonly Rates[],
  mayMove: (partition: number) => boolean = () => true,
): readonly Move[] {
  if (spans.length < MIN_SPANS) return []
  const rates = meanOf(spans)
  const byLoad = [...members].sort((a, b) => loadOf(b, rates) - loadOf(a, rates) || (a.name < b.name ? -1 : 1))
  for (const hot of byLoad) {
    if (!spans.every((span) => isHot(hot, members, span))) continue
    const moves = bestMoves(hot, byLoad, rates, mayMove)
    if (moves !== undefined) return moves
  }
  return []
}

/** Whether the moves would still be worth it. */
function pays(moves: readonly Move[], members: readonly Held[], spans: readonly Rates[]): boolean {
  if (spans.length === 0) return false
  const rates = meanOf(spans)
  const [from, to] = [moves[0]?.from, moves[0]?.to].map((name) => members.find((member) => member.name === name))
  if (from === undefined || to === undefined) return false
  let shift = 0
  for (const move of moves) shift += (move.from === from.name ? 1 : -1) * rateOf(rates, move.partition)
  return isHot(from, members, rates) && isGain(loadOf(from, rates), loadOf(to, rates), shift)
}

/** The mean of the spans. */
export function meanOf(spans: readonly Rates[]): Rates {
  const partitions = Math.max(0, ...spans.map((span) => span.length))
  return Array.from({ length: partitions }, (_, partition) => {
    return spans.reduce((sum, span) => sum + rateOf(span, partition), 0) / spans.length
  })
}

export function loadOf({ active }: { readonly active: readonly number[] }, rates: Rates): number {
  return active.reduce((sum, partition) => sum + rateOf(rates, partition), 0)
}

function isHot(member: Held, members: readonly Held[], rates: Rates): boolean {
  const load = loadOf(member, rates)
  const all = members.reduce((sum, each) => sum + loadOf(each, rates), 0)
  return load >= MIN_HOT_RATE && load >= (HOT * all) / members.length
}

function isGain(from: number, to: number, shift: number): boolean {
  return Math.max(from - shift, to + shift) <= from * (1 - MIN_GAIN)
}

function bestMoves(
  hot: Held,
  members: readonly Held[],
  rates: Rates,
  mayMove: (partition: number) => boolean,
): readonly Move[] | undefined {
  const from = loadOf(hot, rates)
  let found: readonly Move[] | undefined
  let fewestCold = Number.POSITIVE_INFINITY
  let least = Number.POSITIVE_INFINITY
  for (const other of members) {
    if (other === hot) continue
    const to = loadOf(other, rates)
    const exchanges = [...(hot.active.length > other.active.length ? [undefined] : []), ...other.active.filter(mayMove)]
    for (const partition of hot.active.filter(mayMove)) {
      for (const back of exchanges) {
        const shift = rateOf(rates, partition) - (back === undefined ? 0 : rateOf(rates, back))
        if (!isGain(from, to, shift)) continue
        const most = Math.max(from - shift, to + shift)
        const cold =
          Number(!other.standby.includes(partition)) + Number(back !== undefined && !hot.standby.includes(back))
        if (cold > fewestCold || (cold === fewestCold && most >= least)) continue
        fewestCold = cold
        least = most
        found = [{ partition, from: hot.name, to: other.name }]
        if (back !== undefined) found = [...found, { partition: back, from: other.name, to: hot.name }]
      }
    }
  }
  return found
}

function rateOf(rates: Rates, partition: number): number {
  return rates[partition] ?? 0
}

/** Rounds after moves, or after a plan was dropped, in which nothing is planned. */
const COOL_DOWN = 10
/** Rounds for which a partition stays where it was moved to, the first time and at most. */
const STAY = 20
const MAX_STAY = 1280
/** Rounds after members came or went: others may follow. */
const SETTLING = 2
/** Rounds a plan waits for its copies. */
const MAX_WAIT = 20

export interface Balanced extends Deferred {
  /** Partitions that change their owner for the sake of load. */
  readonly moved: readonly Move[]
  /** Partitions that will, when the copies that begin now are whole. */
  readonly warming: readonly Move[]
}

/**
 * The assigner, and what of the load it learns while nobody comes or goes. Time is in rounds. No I/O: the leader of the
 * group keeps one, which is worth nothing to the next leader.
 */
export class Balancer {
  readonly #partitions: number
  readonly #standbys: number
  #members: readonly Held[] = []
  #plan: readonly Move[] = []
  /** The moves of the plan whose copy is kept beside the usual ones. */
  #cold: readonly Move[] = []
  #waited = 0
  #rest = 0
  /** For each moved partition: the round from which it may move again, and how long it rested. */
  readonly #resting = new Map<number, { until: number; rounds: number }>()
  #now = 0

  constructor(partitions: number, standbys: number) {
    this.#partitions = partitions
    this.#standbys = standbys
  }

  /** One round of a stable group; `spans` are the latest, the oldest first. Whether the group should assign anew. */
  round(spans: readonly Rates[]): boolean {
    this.#now++
    if (this.#plan.length > 0) {
      // Only an assignment tells how far the copies are.
      if (++this.#waited > MAX_WAIT || !pays(this.#plan, this.#members, spans)) this.#end(COOL_DOWN)
      return true
    }
    if (this.#rest > 0) {
      this.#rest--
      return false
    }
    this.#plan = balance(this.#members, spans, (p) => (this.#resting.get(p)?.until ?? 0) <= this.#now)
    this.#cold = this.#plan.filter((move) => !this.#members.some((member) => isCopy(move, member)))
    return this.#plan.length > 0
  }

  assign(members: readonly Candidate[], spans: readonly Rates[]): Balanced {
    const rates = spans.length === 0 ? undefined : meanOf(spans)
    // An unfit member takes no part in evening the load.
    const names = new Set(fitOf(members).map(({ name }) => name))
    const same = names.size === this.#members.length && this.#members.every(({ name }) => names.has(name))
    if (!same) this.#end(SETTLING)
    else if (!this.#plan.every((move) => isHeld(move, members))) this.#end(COOL_DOWN)
    const [plan, cold] = [this.#plan, this.#cold]
    const whole = plan.every((move) => isWhole(move, members, rates))
    if (plan.length > 0 && whole) {
      this.#end(COOL_DOWN)
      for (const { partition } of plan) this.#settle(partition)
    }
    const candidates = whole ? moved(members, plan) : members.map((member) => withoutCopies(member, cold))
    const input = { members: candidates, partitions: this.#partitions, standbys: this.#standbys, load: rates }
    const deferred = deferToHeirs(assign(input), candidates, rates)
    const assigned = whole ? deferred.assigned : withCopies(deferred.assigned, cold)
    const held = [...assigned].map(([name, { active, standby }]) => ({ name, active, standby }))
    this.#members = held.filter(({ name }) => names.has(name))
    return { assigned, heirs: deferred.heirs, moved: whole ? plan : [], warming: whole ? [] : plan }
  }

  /** A partition that was moved before stays twice as long: load that swings moves it ever more seldom. */
  #settle(partition: number): void {
    const rounds = Math.min(MAX_STAY, 2 * (this.#resting.get(partition)?.rounds ?? STAY / 2))
    this.#resting.set(partition, { until: this.#now + rounds, rounds })
  }

  #end(rest: number): void {
    this.#plan = []
    this.#cold = []
    this.#waited = 0
    this.#rest = Math.max(this.#rest, rest)
  }
}

function isHeld({ partition, from }: Move, members: readonly Candidate[]): boolean {
  return members.some(({ name, active }) => name === from && active.includes(partition))
}

function isCopy({ partition, to }: Move, { name, standby }: Held): boolean {
  return name === to && standby.includes(partition)
}

/** Whether the copy at the target has nearly caught up with the owner. */
function isWhole({ partition, from, to }: Move, members: readonly Candidate[], rates: Rates | undefined): boolean {
  const [owner, copy] = [from, to].map((name) => members.find((member) => member.name === name))
  if (copy?.standby.includes(partition) !== true) return false
  return lacksLittle(partition, owner, copy, rates)
}

/** The members as if the moves were made: the assigner lets everyone keep what they have. */
function moved(members: readonly Candidate[], moves: readonly Move[]): readonly Candidate[] {
  return members.map((member) => {
    const [gone, come] = [moves.filter(({ from }) => from === member.name), movesTo(member.name, moves)]
    const active = member.active.filter((partition) => !gone.some((move) => move.partition === partition))
    return { ...member, active: [...active, ...come.map(({ partition }) => partition)] }
  })
}

/** The copies of a plan come in addition to the usual ones, which stay where they are. */
function withoutCopies(member: Candidate, moves: readonly Move[]): Candidate {
  const extra = movesTo(member.name, moves)
  return { ...member, standby: member.standby.filter((p) => !extra.some(({ partition }) => partition === p)) }
}

function withCopies(assigned: ReadonlyMap<string, Assigned>, moves: readonly Move[]): ReadonlyMap<string, Assigned> {
  const entries = [...assigned].map(([name, { active, standby }]) => {
    const all = new Set([...standby, ...movesTo(name, moves).map(({ partition }) => partition)])
    return [name, { active, standby: [...all].sort((a, b) => a - b) }] as const
  })
  return new Map(entries)
}

function movesTo(name: string, moves: readonly Move[]): readonly Move[] {
  return moves.filter(({ to }) => to === name)
}
