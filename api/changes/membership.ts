/** Whether the client of a stream has a device. `unknown`: what it was told before this stream is not known here. */
export type Member = 'in' | 'out' | 'unknown'

const CHUNK_BITS = 10
const CHUNK_BYTES = 2 ** CHUNK_BITS / 4
const IN = 1
const OUT = 2

/** What the client of one stream has, by the numbers of devices, two bits a device: a mebi of devices takes 256 KiB. */
export class Membership {
  readonly #chunks = new Map<number, Uint8Array>()
  /** Of devices that this stream has not told of. */
  #others: Member
  readonly #numbers: { readonly first: number }
  #first: number

  constructor(others: Member, numbers: { readonly first: number }) {
    this.#others = others
    this.#numbers = numbers
    this.#first = numbers.first
  }

  /** `number`: of the device; one that has none is never known. */
  get(number: number | undefined): Member {
    const place = this.#placeOf(number)
    if (place === undefined) return 'unknown'
    const bits = ((this.#chunks.get(place >> CHUNK_BITS)?.[this.#byte(place)] ?? 0) >> this.#shift(place)) & 3
    return bits === IN ? 'in' : bits === OUT ? 'out' : this.#others
  }

  set(number: number | undefined, member: 'in' | 'out'): void {
    const place = this.#placeOf(number)
    if (place === undefined) return
    let chunk = this.#chunks.get(place >> CHUNK_BITS)
    if (chunk === undefined) {
      if (member === this.#others) return
      chunk = new Uint8Array(CHUNK_BYTES)
      this.#chunks.set(place >> CHUNK_BITS, chunk)
    }
    const byte = this.#byte(place)
    const shift = this.#shift(place)
    chunk[byte] = ((chunk[byte] as number) & ~(3 << shift)) | ((member === 'in' ? IN : OUT) << shift)
  }

  /** Undefined also for a number of before all devices were numbered anew: what is known of them by such is forgotten. */
  #placeOf(number: number | undefined): number | undefined {
    const { first } = this.#numbers
    if (this.#first !== first) {
      this.#first = first
      this.#chunks.clear()
      this.#others = 'unknown'
    }
    return number === undefined || number < first ? undefined : number - first
  }

  #byte(place: number): number {
    return (place >> 2) & (CHUNK_BYTES - 1)
  }

  #shift(place: number): number {
    return (place & 3) << 1
  }
}
