/** MQTT 3.1.1 control packet types (2.2.1) that ingest treats apart. */
export const PUBLISH = 3
const CONNECT = 1
const PUBREL = 6
export const SUBSCRIBE = 8
export const UNSUBSCRIBE = 10
const PINGREQ = 12
export const DISCONNECT = 14

/** Least and most remaining length of each packet type a client may send (section 3); others are malformed. */
const LENGTHS: readonly (readonly [number, number] | undefined)[] = (() => {
  const any = Number.MAX_SAFE_INTEGER
  const lengths: (readonly [number, number] | undefined)[] = Array.from({ length: 16 })
  lengths[CONNECT] = [12, any]
  lengths[PUBLISH] = [3, any]
  for (const acknowledgement of [4, 5, 6, 7]) lengths[acknowledgement] = [2, 2]
  lengths[SUBSCRIBE] = [6, any]
  lengths[UNSUBSCRIBE] = [5, any]
  lengths[PINGREQ] = [0, 0]
  lengths[DISCONNECT] = [0, 0]
  return lengths
})()

/** Flags of the fixed header, but of PUBLISH [MQTT-2.2.2-1]. */
const FLAGS: readonly number[] = Array.from({ length: 16 }, (_, type) =>
  type === PUBREL || type === SUBSCRIBE || type === UNSUBSCRIBE ? 2 : 0,
)

/** The fixed header of one packet, filled by `readHeader`. */
export interface Header {
  type: number
  qos: number
  /** Bytes of the fixed header, and the remaining length it announces. */
  bytes: number
  length: number
}

export type HeaderState = 'whole' | 'incomplete' | 'malformed' | 'oversized'

/**
 * Reads the fixed header at `at`. For packets that begin with a packet id or a topic it also wants those two bytes, and
 * checks them: the parser behind would read past the end of a packet whose topic claims to be longer than the packet.
 */
export function readHeader(chunk: Uint8Array, at: number, maxLength: number, header: Header): HeaderState {
  const first = chunk[at] as number
  const type = first >> 4
  let length = 0
  let bytes = 1
  for (let shift = 0; ; shift += 7) {
    if (shift > 21) return 'malformed'
    const byte = chunk[at + bytes]
    if (byte === undefined) return 'incomplete'
    bytes++
    length |= (byte & 0x7f) << shift
    if (byte < 0x80) break
  }
  const allowed = LENGTHS[type]
  if (allowed === undefined || length < allowed[0] || length > allowed[1]) return 'malformed'
  if (length > maxLength) return 'oversized'
  let qos = 0
  if (type === PUBLISH) {
    qos = (first >> 1) & 3
    // [MQTT-3.3.1-4], [MQTT-3.3.1-2]
    if (qos === 3 || (qos === 0 && (first & 8) !== 0)) return 'malformed'
  } else if ((first & 0x0f) !== FLAGS[type]) {
    // [MQTT-2.2.2-2]
    return 'malformed'
  }
  if (length > 0 && type !== CONNECT) {
    const low = chunk[at + bytes + 1]
    if (low === undefined) return 'incomplete'
    const word = ((chunk[at + bytes] as number) << 8) | low
    // A packet id and a topic are never empty [MQTT-2.3.1-1, MQTT-4.7.3-1].
    if (word === 0) return 'malformed'
    if (type === PUBLISH && word + (qos > 0 ? 4 : 2) > length) return 'malformed'
  }
  header.type = type
  header.qos = qos
  header.bytes = bytes
  header.length = length
  return 'whole'
}

/** Counts the filters of a SUBSCRIBE (3.8.3) or UNSUBSCRIBE (3.10.3) whose body comes in pieces. */
export class FilterList {
  count = 0
  /** Bytes after each filter: the QoS wanted, or none. */
  readonly #trailer: number
  /** Bytes to come before the next length; at first the packet id. */
  #skip = 2
  #high: number | undefined

  constructor(type: typeof SUBSCRIBE | typeof UNSUBSCRIBE) {
    this.#trailer = type === SUBSCRIBE ? 1 : 0
  }

  read(chunk: Uint8Array, from: number, to: number): void {
    for (let at = from; at < to; ) {
      if (this.#skip > 0) {
        const bytes = Math.min(this.#skip, to - at)
        this.#skip -= bytes
        at += bytes
        continue
      }
      const byte = chunk[at++] as number
      if (this.#high === undefined) {
        this.#high = byte
      } else {
        this.count++
        this.#skip = ((this.#high << 8) | byte) + this.#trailer
        this.#high = undefined
      }
    }
  }
}
