import type { ServerResponse } from 'node:http'

/**
 * The events of a stream, in the format of WHATWG HTML section 9.2.6. A client that empties its set at `reset`, adds at
 * `enter` and `change`, and deletes at `leave` ends up with the devices that match.
 */
export type EventName = 'reset' | 'enter' | 'change' | 'leave' | 'snapshot-end' | 'position' | 'end'

/** Why a stream starts without the state that the client may have. */
export const RESET_REASONS = [
  'start',
  'position-malformed',
  'position-of-another-stream',
  'position-out-of-range',
  'position-expired',
  'position-too-old',
] as const
export type ResetReason = (typeof RESET_REASONS)[number]

/** Why the server ends a stream. The client may connect again with its last id. */
export const END_REASONS = [
  'shutdown',
  'slow-reader',
  'overloaded',
  'token-expired',
  'token-withdrawn',
  'unavailable',
  'error',
] as const
export type EndReason = (typeof END_REASONS)[number]

/** `data` is JSON. An undefined `id` leaves the client's id as it is. */
export function eventText(name: EventName, data: string, id?: string): string {
  return `event: ${name}\ndata: ${oneLine(data)}\n${id === undefined ? '' : `id: ${id}\n`}\n`
}

/** JSON has line breaks only between its members. */
function oneLine(json: string): string {
  return json.includes('\n') || json.includes('\r') ? json.replaceAll(/[\r\n]/g, ' ') : json
}

/**
 * Keeps a quiet connection open when there is no position to tell. It is not a block of its own: some clients hand
 * every block on as an event without data.
 */
export const COMMENT = ':\n'

export function retryText(ms: number): string {
  return `retry: ${ms}\n`
}

export interface EventSink {
  /** The client has not taken earlier output, so more would only wait here. */
  readonly blocked: boolean
  onDrain: () => void
  /** Called once when the connection is gone, whoever ended it. */
  onClose: () => void
  write(text: string): void
  /** Sends `text` as the last output. The connection closes when the client has taken everything. */
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
    // `close` reports the end. The cause does not matter.
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
