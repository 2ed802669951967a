/** One read that may be begun before it is asked for. A failure is told to who asks. */
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
