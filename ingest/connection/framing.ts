/** MQTT 3.1.1 control packet types (section 2.2.1). */
export const PUBLISH = 3
const CONNECT = 1
const PUBREL = 6
export const SUBSCRIBE = 8
export const UNSUBSCRIBE = 10
const PINGREQ = 12
export const DISCONNECT = 14

const ANY = Number.MAX_SAFE_INTEGER
/** Least and most remaining length of each packet type that a client may send (section 3); other types are malformed. */
const LENGTHS: Readonly<Record<number, readonly [number, number]>> = {
  [CONNECT]: [12, ANY],
  [PUBLISH]: [3, ANY],
  // PUBACK, PUBREC, PUBREL, PUBCOMP
  4: [2, 2],
  5: [2, 2],
  [PUBREL]: [2, 2],
  7: [2, 2],
  [SUBSCRIBE]: [6, ANY],
  [UNSUBSCRIBE]: [5, ANY],
  [PINGREQ]: [0, 0],
  [DISCONNECT]: [0, 0],
}

/** Flags of the fixed header by packet type, except PUBLISH [MQTT-2.2.2-1]. */
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
 * Reads the fixed header at `at`. For packets that begin with a packet id or a topic it also needs those two bytes, and
 * checks them: aedes' parser would read past the end of a packet whose topic claims to be longer than the packet.
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
  /** Bytes after each filter: its QoS, or none. */
  readonly #trailer: number
  /** Bytes until the next length; at first the packet id. */
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
