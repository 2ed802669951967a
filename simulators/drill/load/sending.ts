import type { Mark } from '../report/journal.ts'

/** What stands between devices and log: while it is disturbed they may be locked out, and no other disturbance excuses it. */
const DOORS: ReadonlySet<string> = new Set(['devices', 'ingest', 'kafka', 'tidemark'])
/** What ends with what it does. The others last until the next disturbance of the same target. */
const ENDING: ReadonlySet<string> = new Set(['start', 'thaw', 'heal', 'storm'])
/** After the disturbance, ms: gateways back off for up to 2 s, and ingest finds its log again. */
const RETURN_MS = 5_000
/** Longest time without a session that is no finding, ms: a CONNECT that nobody answers takes a gateway 10 s. */
export const MAX_ABSENCE_MS = 15_000

/** What the devices could do while nothing kept them from it. */
export interface SendingReport {
  /** How long that was, ms, and the messages sent in it. */
  readonly ms: number
  readonly sent: number
  /** Connections that had no session for longer than MAX_ABSENCE_MS in one go, and the longest such time, ms. */
  readonly locked: number
  readonly longestMs: number
}

/** A look at the connections. */
export interface SendingLook {
  /** Ms since the drill began. */
  readonly now: number
  /** The load is on. */
  readonly publishing: boolean
  /** Messages sent so far by those who have a rate: what visitors send would pass for a tenth of a small one. */
  readonly sent: number
  /** Of each connection, how long it has had no session, ms; 0: it has one. */
  readonly absences: readonly number[]
}

/** Looks at the connections now and then: how much is sent, and who cannot get a session, while nothing is disturbed. */
export class Sending {
  readonly #locked = new Set<number>()
  #before: SendingLook | undefined
  #ms = 0
  #sent = 0
  #longestMs = 0

  get report(): SendingReport {
    return { ms: this.#ms, sent: this.#sent, locked: this.#locked.size, longestMs: this.#longestMs }
  }

  look(look: SendingLook, marks: readonly Mark[]): void {
    const { now, publishing, sent, absences } = look
    const before = this.#before
    this.#before = look
    const calm = now - calmSince(marks)
    absences.forEach((absence, connection) => {
      const without = Math.min(absence, calm)
      if (without > this.#longestMs) this.#longestMs = Math.round(without)
      if (without > MAX_ABSENCE_MS) this.#locked.add(connection)
    })
    if (before === undefined || !before.publishing || !publishing || calm < now - before.now) return
    this.#ms += now - before.now
    this.#sent += sent - before.sent
  }
}

/** Since when nothing has kept devices from sending, ms since the drill began; Infinity: something does. */
function calmSince(marks: readonly Mark[]): number {
  const last = new Map<string, Mark>()
  for (const mark of marks) if (DOORS.has(mark.target)) last.set(mark.target, mark)
  let since = 0
  for (const { verb, doneAt } of last.values()) {
    since = Math.max(since, ENDING.has(verb) && doneAt !== undefined ? doneAt + RETURN_MS : Infinity)
  }
  return since
}
