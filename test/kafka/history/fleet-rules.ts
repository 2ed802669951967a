import { queryOf } from '../../../api/search/schemas.ts'
import type { Status } from '../../../processor/contract/status.ts'
import { Matcher } from '../../../processor/search/language/match.ts'
import type { Count, History } from './history.ts'
import type { LogOrder } from './log-order.ts'
import type { State, States } from './states.ts'
import type { Verdict } from './verdict.ts'

const matchers = new Map<string, Matcher>()

/** Whether a status is what `q` asks for; one that is not there never is. */
function matches(q: string | undefined, status: Status | undefined): boolean {
  if (status === undefined || q === undefined) return status !== undefined
  const matcher = matchers.get(q) ?? new Matcher(queryOf(q))
  matchers.set(q, matcher)
  return matcher.matches(status)
}

export function judgeLists({ lists }: History, states: States, order: LogOrder, verdict: Verdict): void {
  for (const { q, answers, completed } of lists) {
    const ids = new Set(answers.map(({ deviceId }) => deviceId))
    const wrong = answers.filter(
      ({ text }) => !matches(q, text === undefined ? undefined : (JSON.parse(text) as Status)),
    )
    const holds = ids.size === answers.length && wrong.length === 0
    verdict.judge('complete lists', holds, () => ({ q, doubles: answers.length - ids.size, wrong }))
    // What was looked through to find nothing has no place in an answer, so only of lists of all it is known as of when.
    if (q !== undefined) continue
    const least = new Map<number, number>()
    for (const { freshness } of answers) {
      const { partition, offset } = freshness
      least.set(partition, Math.min(offset, least.get(partition) ?? offset))
    }
    for (const [partition, from] of least) {
      for (const deviceId of states.devices(partition)) {
        const during = states.between(deviceId, from, Math.max(from, order.horizon(partition, completed)))
        if (during.some(({ status }) => status === undefined)) continue
        verdict.judge('complete lists', ids.has(deviceId), () => ({ deviceId, from, during }))
      }
    }
  }
}

/** By bounds: what is counted slice by slice is not of one moment. */
export function judgeCounts({ counts }: History, states: States, order: LogOrder, verdict: Verdict): void {
  for (const counted of counts) {
    const isMeant = ({ status }: State): boolean => matches(counted.q, status) && isAmong(counted, status)
    let [least, most] = [0, 0]
    for (const { partition, offset } of counted.freshness) {
      const horizon = Math.max(offset, order.horizon(partition, counted.completed))
      for (const deviceId of states.devices(partition)) {
        const during = states.between(deviceId, offset, horizon)
        if (during.every(isMeant)) least++
        if (during.some(isMeant)) most++
      }
    }
    const told = new Set(counted.freshness.map(({ partition }) => partition))
    const isWhole = states.partitions().every((partition) => told.has(partition))
    const holds = isWhole && counted.count >= least && counted.count <= most
    verdict.judge('exact counts', holds, () => ({ counted, least, most }))
  }
}

function isAmong({ group }: Count, status: Status | undefined): boolean {
  if (group === undefined) return true
  return status?.connectivity.state === group.state && (status?.attributes?.team ?? null) === group.team
}

/** Each event, and the order of those of one connection. */
export function judgeChanges({ told }: History, states: States, verdict: Verdict): void {
  /** Least place that the last event of a device can be of, by follower. */
  const reached = new Map<string, Map<string, number>>()
  const connections = new Map<string, number>()
  for (const event of told) {
    const { follower, connection, q, deviceId, text } = event
    let places = reached.get(follower)
    if (places === undefined || event.event === 'reset' || connections.get(follower) !== connection) {
      places = new Map()
      reached.set(follower, places)
      connections.set(follower, connection)
    }
    if (deviceId === undefined || text === undefined) continue
    const all = states.of(deviceId)
    const most = all.findLastIndex((state) => state.text === text)
    const before = places.get(deviceId) ?? 0
    const holds = most >= before && matches(q, all[most]?.status)
    verdict.judge('ordered changes', holds, () => ({ event, before: all[before], there: all[most] }))
    const least = all.findIndex((state, place) => place >= before && state.text === text)
    if (least >= 0) places.set(deviceId, least)
  }
}

export function judgeConvergence({ holdings }: Pick<History, 'holdings'>, states: States, verdict: Verdict): void {
  for (const { holder, q, deviceId, devices } of holdings) {
    const due = new Set<string>()
    for (const id of deviceId === undefined ? states.allDevices() : [deviceId]) {
      const { text, status } = states.last(id)
      if (!matches(q, status)) continue
      due.add(id)
      verdict.judge('convergence', devices.get(id) === text, () => ({ holder, id, holds: devices.get(id), text }))
    }
    const others = [...devices.keys()].filter((id) => !due.has(id))
    verdict.judge('convergence', others.length === 0, () => ({ holder, others }))
  }
}
