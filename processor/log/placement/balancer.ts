import { type Assigned, assign, type Candidate, fitOf } from './assigner.ts'
import { balance, type Held, type Move, meanOf, pays, type Rates } from './balance.ts'
import { lacksLittle, type Succession, succeed } from './heirs.ts'

/** Rounds after moves, or after a plan was dropped, in which nothing is planned. */
const COOL_DOWN = 10
/** Rounds for which a partition stays where it was moved to, the first time and at most. */
const STAY = 20
const MAX_STAY = 1280
/** Rounds after members came or went: others may follow. */
const SETTLING = 2
/** Rounds a plan waits for its copies. */
const MAX_WAIT = 20

export interface Balanced extends Succession {
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
  /** Those moves of the plan whose copy is kept beside the usual ones. */
  #cold: readonly Move[] = []
  #waited = 0
  #rest = 0
  /** Of each partition that was moved: the round from which it may be again, and how long that was. */
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
      // How far the copies are is told only by an assignment.
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

  /** Who holds what from now on. */
  assign(members: readonly Candidate[], spans: readonly Rates[]): Balanced {
    const rates = spans.length === 0 ? undefined : meanOf(spans)
    // To even the load no one else is there.
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
    const succession = succeed(assign(input), candidates, rates)
    const assigned = whole ? succession.assigned : withCopies(succession.assigned, cold)
    const held = [...assigned].map(([name, { active, standby }]) => ({ name, active, standby }))
    this.#members = held.filter(({ name }) => names.has(name))
    return { assigned, heirs: succession.heirs, moved: whole ? plan : [], warming: whole ? [] : plan }
  }

  /** A partition that was moved before stays for twice as long: load that only swings moves it ever more seldom. */
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

/** Whether the copy at the move's aim lacks next to nothing of what the owner has. */
function isWhole({ partition, from, to }: Move, members: readonly Candidate[], rates: Rates | undefined): boolean {
  const [owner, copy] = [from, to].map((name) => members.find((member) => member.name === name))
  if (copy?.standby.includes(partition) !== true) return false
  return lacksLittle(partition, owner, copy, rates)
}

/** The members as if the moves had been made: the assigner lets everyone keep what he has. */
function moved(members: readonly Candidate[], moves: readonly Move[]): readonly Candidate[] {
  return members.map((member) => {
    const [gone, come] = [moves.filter(({ from }) => from === member.name), movesTo(member.name, moves)]
    const active = member.active.filter((partition) => !gone.some((move) => move.partition === partition))
    return { ...member, active: [...active, ...come.map(({ partition }) => partition)] }
  })
}

/** The copies of a plan are beside the usual ones, which stay where they are. */
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
