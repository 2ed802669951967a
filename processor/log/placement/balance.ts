/** A partition that changes its owner for the sake of load. */
export interface Move {
  readonly partition: number
  readonly from: string
  readonly to: string
}

/** What a member of a stable group holds. */
export interface Held {
  /** See Candidate. */
  readonly name: string
  readonly active: readonly number[]
  readonly standby: readonly number[]
}

/** Records per second of each partition, over one span of time. */
export type Rates = readonly number[]

/** A member is hot from this multiple of the mean load of all members on… */
const HOT = 1.3
/** …and from so many records per second on: below, a move costs more than it gives. */
const MIN_HOT_RATE = 1000
/** What moves must take from the load of the hot member, and leave the other below it by as much. */
const MIN_GAIN = 0.2
/** Spans in each of which the member must have been hot: a burst is over before a move pays. */
const MIN_SPANS = 4

/**
 * What to move so that the load of the members is less uneven: nothing, one partition, or one against another, so that
 * counts stay as even as they are. Moves to copies that are there come first, then what evens most. Pure and
 * deterministic.
 */
export function balance(
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
export function pays(moves: readonly Move[], members: readonly Held[], spans: readonly Rates[]): boolean {
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
