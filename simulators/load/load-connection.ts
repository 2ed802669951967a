import { connect, type Socket } from 'node:net'
import { JitteredBackoff, type Random } from '../random.ts'
import type { Ledger } from './ledger.ts'

export interface LoadConnectionOptions {
  readonly host: string
  readonly port: number
  readonly clientId: string
  readonly prefix: string
  /** The devices this connection speaks for: `firstDevice`, and every `stride`-th after it, `devices` in all. */
  readonly firstDevice: number
  readonly stride: number
  readonly devices: number
  /** Messages under way at once. */
  readonly window: number
  /** Messages to send in all; Infinity: until `stop`. */
  readonly messages: number
  /** Jitter of the reconnects, after which unacknowledged messages are sent again; undefined: a lost connection fails. */
  readonly reconnect?: Random | undefined
  /** Index of the device that sends next; undefined: they take turns. */
  readonly choose?: (() => number) | undefined
}

const BACK_OFF_MIN_MS = 50
const BACK_OFF_MAX_MS = 2_000
const CONNECT_TIMEOUT_MS = 10_000
const CONNACK = 0x20
const PUBACK = 0x40
const NOTHING: Buffer = Buffer.alloc(0)
const CONNACK_BYTES = 4

/**
 * One connection of the load generator. A broker acknowledges QoS 1 messages in the order of their receipt (MQTT 3.1.1,
 * 4.6), so the messages under way are a ring, and a packet id is the number of its slot.
 */
export class LoadConnection {
  readonly #options: LoadConnectionOptions
  readonly #ledger: Ledger
  #socket: Socket
  readonly #ring: PacketRing
  readonly #devices: Uint32Array
  readonly #seqs: Uint32Array
  readonly #sentAt: Float64Array
  /** The slot to fill next, and how many messages before it are under way. */
  #head = 0
  #underWay = 0
  #left: number
  #device = 0
  readonly #step: number
  #carry: Buffer = NOTHING
  #connacked = false
  #absentSince = performance.now()
  readonly #backoff: JitteredBackoff | undefined
  #retry: NodeJS.Timeout | undefined
  #ended = false
  /** Whether acknowledged messages are replaced by new ones at once. */
  #saturate = false
  /** Resolves at CONNACK, or when the connection failed. */
  readonly opened: Promise<void>
  readonly #settle: () => void

  constructor(options: LoadConnectionOptions, ledger: Ledger) {
    const { window, devices } = options
    this.#options = options
    this.#ledger = ledger
    this.#left = options.messages
    this.#ring = new PacketRing(options.prefix, window)
    this.#devices = new Uint32Array(window)
    this.#seqs = new Uint32Array(window)
    this.#sentAt = new Float64Array(window)
    this.#step = coprimeStep(devices)
    const { reconnect } = options
    this.#backoff = reconnect && new JitteredBackoff(BACK_OFF_MIN_MS, BACK_OFF_MAX_MS, reconnect)
    const { promise, resolve } = Promise.withResolvers<void>()
    this.opened = promise
    this.#settle = resolve
    this.#socket = this.#open()
  }

  #open(): Socket {
    const { host, port, clientId, reconnect } = this.#options
    const socket = connect({ host, port, noDelay: true })
    this.#socket = socket
    this.#carry = NOTHING
    socket.setTimeout(CONNECT_TIMEOUT_MS, () => this.#fail('did not answer CONNECT'))
    socket.on('connect', () => socket.write(connectPacket(clientId)))
    socket.on('data', (chunk) => {
      if (socket === this.#socket && !socket.destroyed) this.#read(chunk)
    })
    // A connection that reconnects does so on its close.
    socket.on('error', (error) => {
      if (reconnect === undefined) this.#fail(error.message)
    })
    socket.on('close', () => this.#closed())
    return socket
  }

  #closed(): void {
    if (this.#connacked) this.#absentSince = performance.now()
    this.#connacked = false
    if (this.#ended) return
    if (this.#backoff === undefined) {
      if (!this.done) this.#fail('the broker closed it')
      return
    }
    this.#ledger.disconnected()
    this.#retry = setTimeout(() => this.#open(), this.#backoff.next())
  }

  get payloadBytes(): number {
    return this.#ring.payloadLength
  }

  get underWay(): number {
    return this.#underWay
  }

  /** Everything it had to send is acknowledged. */
  get done(): boolean {
    return this.#left === 0 && this.#underWay === 0
  }

  /** Keeps the window full from now on. */
  saturate(): void {
    this.#saturate = true
    this.send(this.#options.window)
  }

  /** Sends nothing more; what is under way is still awaited. */
  stop(): void {
    this.#left = 0
  }

  get connected(): boolean {
    return this.#connacked
  }

  /** `performance.now()` when it lost its session with the broker; undefined: it has one. */
  get absentSince(): number | undefined {
    return this.#connacked ? undefined : this.#absentSince
  }

  /** Cuts the connection, which reconnects at once. */
  drop(): void {
    this.#backoff?.reset()
    this.#socket.destroy()
  }

  /** Closes the connection, and gives up what is under way. */
  destroy(): void {
    this.#ended = true
    clearTimeout(this.#retry)
    this.#left = 0
    this.#underWay = 0
    this.#socket.destroy()
  }

  /** Sends at most `count` messages, as far as the window goes, and returns how many. */
  send(count: number): number {
    const { window, reconnect } = this.#options
    const total = Math.min(count, window - this.#underWay, this.#left)
    if (total <= 0 || (reconnect !== undefined && !this.#connacked)) return 0
    const first = this.#head
    const ts = Date.now()
    const sentAt = performance.now()
    for (let i = 0; i < total; i++) this.#fill(ts, sentAt)
    this.#underWay += total
    this.#left -= total
    this.#write(first, total)
    return total
  }

  #write(first: number, total: number): void {
    const { window } = this.#options
    const { bytes, packetLength } = this.#ring
    const upTo = first + total
    // Slots are not reused before their acknowledgement, so the socket may keep these views.
    this.#socket.write(bytes.subarray(first * packetLength, Math.min(upTo, window) * packetLength))
    if (upTo > window) this.#socket.write(bytes.subarray(0, (upTo - window) * packetLength))
  }

  /** Sends what the last connection left unacknowledged: the same bytes in the same order. */
  #resend(): void {
    if (this.#underWay === 0) return
    this.#ledger.resent(this.#underWay)
    this.#write(this.#tail, this.#underWay)
  }

  get #tail(): number {
    const { window } = this.#options
    return (this.#head - this.#underWay + window) % window
  }

  #fill(ts: number, sentAt: number): void {
    const { firstDevice, stride, devices, window, choose } = this.#options
    const slot = this.#head
    if (choose !== undefined) this.#device = choose()
    const device = firstDevice + this.#device * stride
    this.#device = (this.#device + this.#step) % devices
    const seq = this.#ledger.next(device)
    this.#ring.patch(slot, device, seq, ts)
    this.#devices[slot] = device
    this.#seqs[slot] = seq
    this.#sentAt[slot] = sentAt
    this.#head = slot + 1 === window ? 0 : slot + 1
  }

  #read(chunk: Buffer): void {
    let bytes = this.#carry.length === 0 ? chunk : Buffer.concat([this.#carry, chunk])
    if (!this.#connacked) {
      if (bytes.length < CONNACK_BYTES) {
        this.#carry = bytes
        return
      }
      if (bytes[0] !== CONNACK) return this.#violated(`it sent ${bytes.toString('hex', 0, 4)} where CONNACK was due`)
      if (bytes[3] !== 0) {
        this.#ledger.refused()
        return this.#fail(`it refused CONNECT (return code ${bytes[3]})`)
      }
      this.#connacked = true
      this.#backoff?.reset()
      this.#socket.setTimeout(0)
      this.#settle()
      this.#resend()
      bytes = bytes.subarray(CONNACK_BYTES)
    }
    const whole = bytes.length & ~3
    this.#carry = whole === bytes.length ? this.#carry.subarray(0, 0) : Buffer.from(bytes.subarray(whole))
    if (whole > 0) this.#acknowledge(bytes, whole)
  }

  /** `length`: bytes of whole PUBACKs, 4 each (MQTT 3.1.1, 3.4). */
  #acknowledge(bytes: Buffer, length: number): void {
    const { window } = this.#options
    let slot = this.#tail
    for (let at = 0; at < length; at += 4) {
      const packetId = ((bytes[at + 2] as number) << 8) | (bytes[at + 3] as number)
      if (bytes[at] !== PUBACK || packetId !== slot + 1 || at / 4 >= this.#underWay) {
        const due = at / 4 < this.#underWay ? `PUBACK ${slot + 1}` : 'nothing'
        this.#underWay -= at / 4
        return this.#violated(`it sent ${bytes.toString('hex', at, at + 4)} where ${due} was due`)
      }
      this.#ledger.acknowledged(this.#devices[slot] as number, this.#seqs[slot] as number)
      if (at + 4 === length) this.#ledger.latency(performance.now() - (this.#sentAt[slot] as number))
      slot = slot + 1 === window ? 0 : slot + 1
    }
    this.#underWay -= length / 4
    if (this.#saturate) this.send(window)
  }

  #violated(what: string): void {
    this.#ledger.violated(`connection ${this.#options.clientId}: ${what}`)
    this.#fail(what)
  }

  #fail(what: string): void {
    if (this.#options.reconnect !== undefined) {
      this.#socket.destroy()
      return
    }
    this.#ledger.failed(new Error(`connection ${this.#options.clientId}: ${what}`))
    this.#settle()
    this.destroy()
  }
}

/** A step by which `count` devices take turns, each once a round: neighbours are far apart, so their order helps no store. */
function coprimeStep(count: number): number {
  let step = Math.max(1, Math.floor(count * 0.618))
  while (gcd(step, count) !== 1) step++
  return step
}

function gcd(a: number, b: number): number {
  return b === 0 ? a : gcd(b, a % b)
}

/** Digits of a device's number in its id. */
const DEVICE_DIGITS = 7

/** Numbers begin here, so that all have the same number of digits. */
export const SEQ_START = 1_000_000

export const SEQ_LAST = 9_999_999

export const MAX_DEVICES = 10 ** DEVICE_DIGITS

export function loadDeviceId(prefix: string, device: number): string {
  return `${prefix}-${String(device).padStart(DEVICE_DIGITS, '0')}`
}

/** `values.temperature` of the device's message `seq`, so that a checker knows what to expect. */
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
 * A ring of equal PUBLISH packets (MQTT 3.1.1, 3.3), built once. Only digits are patched, so a message costs no allocation,
 * and packets that follow one another leave in one write. Slot n has packet id n + 1.
 */
class PacketRing {
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

  /** Turns the packet of `slot` into message `seq` of `device` at `ts` (epoch ms). */
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

/** CONNECT (MQTT 3.1.1, 3.1) with a clean session and no keepalive. */
function connectPacket(clientId: string): Buffer {
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

/** Remaining Length (MQTT 3.1.1, 2.2.3). */
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
