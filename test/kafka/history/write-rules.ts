import type { History, Write } from './history.ts'
import type { LogOrder } from './log-order.ts'
import { judgeOrder } from './real-time-order.ts'
import type { State, States } from './states.ts'
import type { Verdict } from './verdict.ts'

/** That each write is in the log as it was answered, in an order that real time allows. */
export function judgeWrites({ writes }: History, states: States, order: LogOrder, verdict: Verdict): void {
  const judge = (holds: boolean, found: () => object): void => verdict.judge('linearizable writes', holds, found)
  const logged = new Map(states.writes.map((write) => [`${write.partition}-${write.offset}`, write]))
  const claimed = new Map<string, Write>()
  for (const write of writes) {
    const { partition, deviceId, token, completion, offset } = write
    const all = order.loggedAs(write)
    judge(all.length <= (completion.type === 'fail' ? 0 : 1), () => ({ wrong: 'times in the log', write, all }))
    if (completion.type === 'ok') judge(offset !== undefined, () => ({ wrong: 'no position', write }))
    if (offset === undefined) continue
    const position = `${partition}-${offset}`
    const there = logged.get(position)
    const isThere = there?.deviceId === deviceId && there.token === token && !claimed.has(position)
    judge(isThere, () => ({ wrong: 'position', write, there, other: claimed.get(position) }))
    claimed.set(position, write)
  }
  judgeStrangers(writes, states, claimed, verdict)
  for (const partition of new Set(writes.map((write) => write.partition))) {
    const shown = writes.flatMap((write) => {
      const place = order.placeOf(write)
      if (place === undefined || write.partition !== partition) return []
      const { invoked, completed, completion } = write
      // Two are never at one place; that was judged above.
      return [{ invoked, completed, least: place, most: place, last: true, first: completion.type === 'ok' }]
    })
    judgeOrder('linearizable writes', `writes of partition ${partition}`, shown, verdict)
  }
}

/** Writes in the log that nobody asked for. Of deletions only the number is known. */
function judgeStrangers(
  writes: readonly Write[],
  states: States,
  claimed: ReadonlyMap<string, Write>,
  verdict: Verdict,
): void {
  const asked = new Set(writes.map(({ token }) => token))
  const open = new Map<string, number>()
  for (const { token, deviceId, offset, completion } of writes) {
    if (token !== undefined || offset !== undefined || completion.type !== 'info') continue
    open.set(deviceId, (open.get(deviceId) ?? 0) + 1)
  }
  for (const write of states.writes) {
    const { deviceId, token, partition, offset } = write
    if (claimed.has(`${partition}-${offset}`)) continue
    const left = open.get(deviceId) ?? 0
    const known = token === undefined ? left > 0 : asked.has(token)
    if (token === undefined) open.set(deviceId, left - 1)
    verdict.judge('linearizable writes', known, () => ({ wrong: 'nobody asked for it', write }))
  }
}

/** That the condition of each write decided, by the state before it; and that of those for one version one was applied. */
export function judgeConditions({ writes }: History, states: States, order: LogOrder, verdict: Verdict): void {
  const judge = (holds: boolean, found: () => object): void => verdict.judge('conditional writes', holds, found)
  const winners = new Map<string, Write>()
  for (const write of writes) {
    const { deviceId, ifMatch, completion } = write
    const outcome = completion.type === 'ok' ? completion.outcome : undefined
    if (outcome === 'applied' && ifMatch?.startsWith('W/') === true) {
      const version = `${deviceId} ${ifMatch}`
      const other = winners.get(version)
      judge(other === undefined, () => ({ wrong: 'two of one version', write, other }))
      winners.set(version, write)
    }
    const place = order.placeOf(write)
    if (place === undefined) continue
    const before = states.at(deviceId, place)
    const after = states.at(deviceId, place + 1)
    const due = outcomeOf(write, before)
    judge(outcome === undefined || outcome === due, () => ({ wrong: 'outcome', write, due, before }))
    // What is not applied leaves all as it was.
    const isApplied = due === 'applied'
    const effect = isApplied ? after !== before && leavesIt(write, after) : after === before
    judge(effect, () => ({ wrong: 'effect', write, due, before, after }))
  }
}

function leavesIt({ token }: Write, { status }: State): boolean {
  return token === undefined ? status === undefined : status?.attributes?.token === token
}

function outcomeOf({ ifMatch }: Write, { status }: State): 'applied' | 'stale' | 'unknown-device' {
  if (status === undefined) return 'unknown-device'
  if (ifMatch === undefined || ifMatch === '*') return 'applied'
  const tag = /^(?:W\/)?"(.*)"$/.exec(ifMatch)?.[1]
  return tag === String(status.rev) || tag === `${status.rev}-${status.firstSeenAt}` ? 'applied' : 'stale'
}
