/** Digits of a device's number in its id. */
const DEVICE_DIGITS = 7
/** `seq` begins here, so that it always has the same number of digits. */
export const SEQ_START = 1_000_000
export const SEQ_LAST = 9_999_999
export const MAX_DEVICES = 10 ** DEVICE_DIGITS

/** The device with this number in a load. */
export function loadDeviceId(prefix: string, device: number): string {
  return `${prefix}-${String(device).padStart(DEVICE_DIGITS, '0')}`
}

/** `values.temperature` of the device's message `seq` (counted from SEQ_START), so that a checker can know what to expect. */
export function loadTemperature(device: number, seq: number): number {
  return milliDegrees(device, seq) / 1000
}

/** Always five digits. */
function milliDegrees(device: number, seq: number): number {
  return 20_000 + ((device * 31 + seq * 7) % 9_000)
}

const TS_PLACEHOLDER = '1000000000000'
const TEMPERATURE_PLACEHOLDER = '20.000'

/**
 * A ring of equal PUBLISH packets (MQTT 3.1.1, 3.3) built once, in which only digits and the packet id are patched: what
 * a slot holds costs no allocation, and packets that follow one another leave in one write. Slot n has packet id n + 1.
 */
export class PacketRing {
  readonly bytes: Buffer
  readonly packetLength: number
  readonly payloadLength: number
  readonly #device: number
  readonly #ts: number
  readonly #seq: number
  readonly #temperature: number
  #lastTs = 0
  readonly #tsDigits = Buffer.from(TS_PLACEHOLDER, 'latin1')

  constructor(prefix: string, slots: number) {
    const topic = `devices/${loadDeviceId(prefix, 0)}/telemetry`
    const payload =
      `{"ts":${TS_PLACEHOLDER},"seq":${SEQ_START},"values":{"temperature":${TEMPERATURE_PLACEHOLDER},` +
      `"humidity":45.2,"pressure":1013.2,"battery":87,"rssi":-61}}`
    const packet = publishPacket(topic, payload)
    const payloadAt = packet.length - payload.length
    this.packetLength = packet.length
    this.payloadLength = payload.length
    this.#device = packet.indexOf(topic) + `devices/${prefix}-`.length
    this.#ts = payloadAt + payload.indexOf(TS_PLACEHOLDER)
    this.#seq = payloadAt + payload.indexOf(`${SEQ_START},"values"`)
    this.#temperature = payloadAt + payload.indexOf(TEMPERATURE_PLACEHOLDER)
    this.bytes = Buffer.alloc(packet.length * slots, packet)
    const packetIdAt = payloadAt - 2
    for (let slot = 0; slot < slots; slot++) this.bytes.writeUInt16BE(slot + 1, slot * packet.length + packetIdAt)
  }

  /** Makes the packet of `slot` message `seq` of `device`, said to be of `ts` (epoch ms). */
  patch(slot: number, device: number, seq: number, ts: number): void {
    const at = slot * this.packetLength
    writeDigits(this.bytes, at + this.#device, DEVICE_DIGITS, device)
    if (ts !== this.#lastTs) {
      this.#lastTs = ts
      writeDigits(this.#tsDigits, 0, TS_PLACEHOLDER.length, ts)
    }
    this.#tsDigits.copy(this.bytes, at + this.#ts)
    writeDigits(this.bytes, at + this.#seq, String(SEQ_START).length, seq)
    const temperature = milliDegrees(device, seq)
    writeDigits(this.bytes, at + this.#temperature, 2, Math.floor(temperature / 1000))
    writeDigits(this.bytes, at + this.#temperature + 3, 3, temperature % 1000)
  }
}

/** CONNECT (3.1) with a clean session and no keepalive. */
export function connectPacket(clientId: string): Buffer {
  const variable = Buffer.from([0, 4, 0x4d, 0x51, 0x54, 0x54, 4, 0b10, 0, 0])
  const id = lengthPrefixed(clientId)
  return Buffer.concat([Buffer.from([0x10]), remainingLength(variable.length + id.length), variable, id])
}

/** PUBLISH with QoS 1, packet id 0. */
function publishPacket(topic: string, payload: string): Buffer {
  const name = lengthPrefixed(topic)
  const body = Buffer.from(payload, 'latin1')
  return Buffer.concat([
    Buffer.from([0x32]),
    remainingLength(name.length + 2 + body.length),
    name,
    Buffer.alloc(2),
    body,
  ])
}

function lengthPrefixed(text: string): Buffer {
  const bytes = Buffer.from(text, 'latin1')
  return Buffer.concat([Buffer.from([bytes.length >> 8, bytes.length & 0xff]), bytes])
}

/** The variable byte length of 2.2.3. */
function remainingLength(length: number): Buffer {
  const bytes: number[] = []
  do {
    const rest = length >> 7
    bytes.push((length & 0x7f) | (rest > 0 ? 0x80 : 0))
    length = rest
  } while (length > 0)
  return Buffer.from(bytes)
}

function writeDigits(bytes: Buffer, at: number, digits: number, value: number): void {
  for (let i = at + digits - 1; i >= at; i--) {
    const rest = Math.floor(value / 10)
    bytes[i] = 48 + (value - rest * 10)
    value = rest
  }
}
