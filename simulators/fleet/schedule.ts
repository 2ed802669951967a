import { pause } from '../../processor/runtime/pause.ts'

/** Times of many things, kept by one timer. */
export interface Schedule {
  /** When each thing is due, in ms after the start; by index. */
  readonly offsets: readonly number[]
  /** Each comes again after this many ms; undefined: once. */
  readonly periodMs: number | undefined
  /** Nothing is due from this many ms after the start on. */
  readonly untilMs: number
}

/** The timer's grain: things due within it are done together. */
const GRAIN_MS = 2
/** Longest wait at a stretch. */
const MAX_WAIT_MS = 1_000
/** Things done in one turn of the event loop, so that one which fell behind still reads its sockets. */
const MAX_PER_TURN = 500

/**
 * Calls `due` with the index of each thing when its time has come, in the order of their times, until all are done, the
 * end is reached or `signal` aborts. All have one period, so a cursor over the sorted offsets is the whole queue. What
 * fell behind is caught up, not left out.
 */
export async function runSchedule(
  schedule: Schedule,
  due: (index: number) => void,
  now: () => number,
  signal: AbortSignal,
): Promise<void> {
  const { offsets, periodMs, untilMs } = schedule
  const order = offsets.map((_, index) => index).sort((a, b) => (offsets[a] as number) - (offsets[b] as number))
  if (order.length === 0) return
  const start = now()
  let round = 0
  let cursor = 0
  for (let turn = 0; !signal.aborted; ) {
    const index = order[cursor] as number
    const at = (offsets[index] as number) + round * (periodMs ?? 0)
    if (at >= untilMs) return
    const early = at - (now() - start)
    if (early > 0 || turn === MAX_PER_TURN) {
      turn = 0
      await pause(Math.min(Math.max(early, GRAIN_MS), MAX_WAIT_MS), signal)
      continue
    }
    due(index)
    turn++
    cursor++
    if (cursor === order.length) {
      if (periodMs === undefined) return
      cursor = 0
      round++
    }
  }
}
