/** Whether the client of a stream has a device. `unknown`: what it was told before this stream is not known here. */
export type Member = 'in' | 'out' | 'unknown'

const CHUNK_BITS = 10
const CHUNK_BYTES = 2 ** CHUNK_BITS / 4
const IN = 1
const OUT = 2

/** What the client of one stream has, two bits a device: a mebi of devices takes 256 KiB. */
export class Membership {
  readonly #chunks = new Map<number, Uint8Array>()
  /** Of devices that this stream has not told of. */
  #others: Member

  constructor(others: Member) {
    this.#others = others
  }

  /** The client has nothing now. */
  clear(): void {
    this.#chunks.clear()
    this.#others = 'out'
  }

  /** `number`: of the device; one that has none is never known. */
  get(number: number | undefined): Member {
    if (number === undefined) return 'unknown'
    const bits = ((this.#chunks.get(number >> CHUNK_BITS)?.[this.#byte(number)] ?? 0) >> this.#shift(number)) & 3
    return bits === IN ? 'in' : bits === OUT ? 'out' : this.#others
  }

  set(number: number | undefined, member: 'in' | 'out'): void {
    if (number === undefined) return
    let chunk = this.#chunks.get(number >> CHUNK_BITS)
    if (chunk === undefined) {
      if (member === this.#others) return
      chunk = new Uint8Array(CHUNK_BYTES)
      this.#chunks.set(number >> CHUNK_BITS, chunk)
    }
    const byte = this.#byte(number)
    const shift = this.#shift(number)
    chunk[byte] = ((chunk[byte] as number) & ~(3 << shift)) | ((member === 'in' ? IN : OUT) << shift)
  }

  #byte(number: number): number {
    return (number >> 2) & (CHUNK_BYTES - 1)
  }

  #shift(number: number): number {
    return (number & 3) << 1
  }
}
