import type { ServerResponse } from 'node:http'

/**
 * The events of a stream, as WHATWG HTML section 9.2.6 writes them. A client that empties its set at `reset`, puts at
 * `enter` and `change`, and deletes at `leave`, comes to hold what matches.
 */
export type EventName = 'reset' | 'enter' | 'change' | 'leave' | 'snapshot-end' | 'position' | 'end'

/** Why a stream begins without what the client may have. */
export const RESET_REASONS = [
  'start',
  'position-malformed',
  'position-of-another-stream',
  'position-out-of-range',
  'position-expired',
  'position-too-old',
] as const
export type ResetReason = (typeof RESET_REASONS)[number]

/** Why the server ends a stream. The client may connect again, with the last id. */
export const END_REASONS = ['shutdown', 'slow-reader', 'overloaded', 'token-expired', 'unavailable', 'error'] as const
export type EndReason = (typeof END_REASONS)[number]

/** `data`: JSON. `id`: undefined leaves the client's as it is. */
export function eventText(name: EventName, data: string, id?: string): string {
  return `event: ${name}\ndata: ${oneLine(data)}\n${id === undefined ? '' : `id: ${id}\n`}\n`
}

/** Line breaks in JSON stand between its members only. */
function oneLine(json: string): string {
  return json.includes('\n') || json.includes('\r') ? json.replaceAll(/[\r\n]/g, ' ') : json
}

/**
 * Keeps a quiet connection open where there is no position to tell. No block of its own: some clients give every block to
 * their callers, as an event without data.
 */
export const COMMENT = ':\n'

/** What the first block begins with. */
export function retryText(ms: number): string {
  return `retry: ${ms}\n`
}

/** Where the events of one stream go. */
export interface EventSink {
  /** The client has not taken what was written: more would only wait here. */
  readonly blocked: boolean
  /** Called when it is no longer blocked. */
  onDrain: () => void
  /** Called once, when the connection is gone, whoever ended it. */
  onClose: () => void
  write(text: string): void
  /** Nothing follows `text`; the connection goes when the client has taken all. */
  end(text: string): void
  destroy(): void
}

export class ResponseSink implements EventSink {
  readonly #response: ServerResponse
  onDrain: () => void = () => {}
  onClose: () => void = () => {}

  constructor(response: ServerResponse) {
    this.#response = response
    response.on('drain', () => this.onDrain())
    response.on('close', () => this.onClose())
    // What broke is of no interest: the connection is gone, as `close` tells.
    response.on('error', () => {})
  }

  get blocked(): boolean {
    return this.#response.writableNeedDrain
  }

  write(text: string): void {
    this.#response.write(text)
  }

  end(text: string): void {
    this.#response.end(text)
  }

  destroy(): void {
    this.#response.destroy()
  }
}
