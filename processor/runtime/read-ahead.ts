/** The read may begin before its result is needed. take() rejects when it fails. */
export class ReadAhead<T> {
  readonly #read: () => Promise<T>
  #begun: Promise<T> | undefined

  constructor(read: () => Promise<T>) {
    this.#read = read
  }

  begin(): void {
    if (this.#begun !== undefined) return
    this.#begun = this.#read()
    this.#begun.catch(() => undefined)
  }

  take(): Promise<T> {
    const begun = this.#begun ?? this.#read()
    this.#begun = undefined
    return begun
  }
}
