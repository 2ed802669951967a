import { connect, type MqttClient } from 'mqtt'

/** Messages under way at once, where nothing else is said. */
const WINDOW = 16
const RETRY_MS = 20

interface Message {
  readonly seq: number
  readonly payload: string
}

/**
 * A device as it should be: it numbers its messages, keeps each until its PUBACK, and after a lost connection sends again,
 * in order and byte for byte, what was not acknowledged. It sends as fast as it is answered.
 */
export class ResendingDevice {
  readonly id: string
  /** Messages with a `seq` up to this one were acknowledged; 0: none. */
  acknowledged = 0
  /** The newest `seq` made. */
  made = 0
  /** PUBLISH packets handed to a socket, those sent again included. */
  attempts = 0
  /** Connections that were lost, or refused. */
  disconnects = 0
  readonly #port: number
  /** What each message carries beside its number. */
  readonly #padding: string | undefined
  readonly #window: number
  readonly #pending: Message[] = []
  #under = 0
  #client: MqttClient | undefined
  #closed: Promise<void> = Promise.resolve()
  #wanted = false
  #retry: NodeJS.Timeout | undefined
  #draining: PromiseWithResolvers<void> | undefined

  /** `paddingBytes` makes each message so much longer. */
  constructor(id: string, port: number, paddingBytes = 0, window = WINDOW) {
    this.id = id
    this.#port = port
    this.#window = window
    this.#padding = paddingBytes === 0 ? undefined : 'x'.repeat(paddingBytes)
  }

  start(): void {
    this.#wanted = true
    this.#connect()
  }

  /** No new connection; resolves when the present one is closed and all it brought is counted. */
  async pause(): Promise<void> {
    this.#wanted = false
    clearTimeout(this.#retry)
    this.#retry = undefined
    await this.#closed
  }

  /** Makes no more messages; resolves when all are acknowledged and the device has said DISCONNECT. */
  async finish(): Promise<void> {
    this.#draining = Promise.withResolvers<void>()
    if (this.#pending.length === 0) this.#draining.resolve()
    await this.#draining.promise
    this.#wanted = false
    this.#client?.end()
    await this.#closed
  }
  /** Cuts the connection, whatever is under way. */
  async destroy(): Promise<void> {
    const closed = this.pause()
    this.#client?.end(true)
    await closed
  }

  #connect(): void {
    const client = connect({
      protocol: 'mqtt',
      host: '127.0.0.1',
      port: this.#port,
      clientId: this.id,
      reconnectPeriod: 0,
      connectTimeout: 5_000,
    })
    this.#client = client
    this.#under = 0
    // The close that follows an error decides what is next.
    client.on('error', () => undefined)
    client.on('connect', () => this.#send(client))
    this.#closed = new Promise((resolve) =>
      client.once('close', () => {
        this.#client = undefined
        this.disconnects++
        if (this.#wanted) this.#retry = setTimeout(() => this.#connect(), RETRY_MS)
        resolve()
      }),
    )
  }

  #send(client: MqttClient): void {
    while (this.#wanted && this.#under < this.#window) {
      if (this.#under === this.#pending.length) {
        if (this.#draining !== undefined) return
        this.#make()
      }
      const message = this.#pending[this.#under++] as Message
      this.attempts++
      client.publish(`devices/${this.id}/telemetry`, message.payload, { qos: 1 }, (error) => {
        if (error || this.#client !== client) return
        this.#acknowledge(message)
        this.#send(client)
      })
    }
  }

  #make(): void {
    const seq = ++this.made
    this.#pending.push({
      seq,
      payload: JSON.stringify({ ts: Date.now(), seq, values: { count: seq, padding: this.#padding } }),
    })
  }

  #acknowledge(message: Message): void {
    // MQTT 3.1.1, 4.6: PUBACKs come in the order of the PUBLISHes.
    if (this.#pending[0] !== message) throw new Error(`${this.id}: ${message.seq} was acknowledged out of order`)
    this.#pending.shift()
    this.#under--
    this.acknowledged = message.seq
    if (this.#pending.length === 0) this.#draining?.resolve()
  }
}
