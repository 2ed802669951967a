import type { ServerResponse } from 'node:http'

/** Where the events of one stream go. */
export interface Sink {
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

export class ResponseSink implements Sink {
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
