import { judgeChanges, judgeConvergence, judgeCounts, judgeLists } from './fleet-rules.ts'
import type { History } from './history.ts'
import { LogOrder } from './log-order.ts'
import { judgeMonotonicReads, judgeOwnWrites, judgePrefixes } from './read-rules.ts'
import type { States } from './states.ts'
import { Verdict } from './verdict.ts'
import { judgeConditions, judgeWrites } from './write-rules.ts'

/** Judges what clients did and saw by what the log holds in the end. */
export function check(history: History, states: States): Verdict {
  const verdict = new Verdict()
  const order = new LogOrder(history.writes, states)
  judgePrefixes(history, states, order, verdict)
  judgeOwnWrites(history, verdict)
  judgeMonotonicReads(history, states, order, verdict)
  judgeWrites(history, states, order, verdict)
  judgeConditions(history, states, order, verdict)
  judgeLists(history, states, order, verdict)
  judgeCounts(history, states, order, verdict)
  judgeChanges(history, states, verdict)
  judgeConvergence(history, states, verdict)
  return verdict
}
