import type { Answer, Freshness, History, Interval } from './history.ts'
import type { LogOrder } from './log-order.ts'
import { judgeOrder, type Shown } from './real-time-order.ts'
import type { States } from './states.ts'
import type { Verdict } from './verdict.ts'

/** Each answer by itself: consistent prefixes. */
export function judgePrefixes(history: History, states: States, order: LogOrder, verdict: Verdict): void {
  for (const answer of history.answers()) {
    const { deviceId, text, freshness, completed } = answer
    const horizon = order.horizon(freshness.partition, completed)
    const could = states.between(deviceId, freshness.offset, Math.max(freshness.offset, horizon))
    verdict.judge(
      'consistent prefix',
      could.some((state) => state.text === text),
      () => ({ answer, horizon, could: could.slice(0, 2) }),
    )
  }
}

/** Reads at a position, and the answers to writes. */
export function judgeOwnWrites({ reads, writes }: History, verdict: Verdict): void {
  const judge = (answer: Answer, position: number): void =>
    verdict.judge('read your writes', answer.freshness.offset > position, () => ({ answer, position }))
  for (const { answers, atLeast } of reads) {
    if (atLeast !== undefined) for (const answer of answers) judge(answer, atLeast)
  }
  for (const { answer, offset } of writes) if (answer !== undefined && offset !== undefined) judge(answer, offset)
}

/**
 * Answers of one API process. By the offsets that they tell, an owner's after all others; and by what they show, since an
 * answer may hold more than it tells, an owner's after an owner's.
 */
export function judgeMonotonicReads(history: History, states: States, order: LogOrder, verdict: Verdict): void {
  const offsets = new Map<string, Shown[]>()
  const places = new Map<string, Shown[]>()
  const tell = ({ by, invoked, completed }: Interval, { partition, offset, servedBy }: Freshness): void => {
    if (by === undefined) return
    const shown = { invoked, completed, least: offset, most: offset, last: servedBy === 'owner', first: true }
    put(offsets, `${by} of partition ${partition}`, shown)
  }
  for (const answer of history.answers()) {
    const { by, deviceId, text, freshness, invoked, completed } = answer
    tell(answer, freshness)
    if (by === undefined || freshness.servedBy !== 'owner') continue
    const all = states.of(deviceId)
    const from = states.placeAt(deviceId, freshness.offset)
    const to = states.placeAt(deviceId, Math.max(freshness.offset, order.horizon(freshness.partition, completed)))
    const could = Array.from({ length: to - from + 1 }, (_, i) => from + i).filter((i) => all[i]?.text === text)
    const [least, most] = [could[0], could.at(-1)]
    if (least === undefined || most === undefined) continue
    put(places, `${by} of ${deviceId}`, { invoked, completed, least, most, last: true, first: true })
  }
  for (const count of history.counts) for (const freshness of count.freshness) tell(count, freshness)
  for (const all of [offsets, places]) {
    for (const [what, shown] of all) judgeOrder('monotonic reads', what, shown, verdict)
  }
}

function put(to: Map<string, Shown[]>, key: string, shown: Shown): void {
  const all = to.get(key)
  if (all === undefined) to.set(key, [shown])
  else all.push(shown)
}
