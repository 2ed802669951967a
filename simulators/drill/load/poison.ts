import { connectAsync, type MqttClient } from 'mqtt'
import { pause } from '../../../processor/runtime/pause.ts'

/** Payloads of devices with a bug. */
const PAYLOADS = [
  '{"temperature":',
  '[]',
  '42',
  '{"values":{"t":1e999}}',
  '\u00ff\u0000',
  '{"seq":"one","values":{"t":1}}',
]
export const CLIENT_ID = 'poisoner'
const LOOK_MS = 20

/** Poison: bad payloads, sent in the name of the fleet's devices. */
export class Poison implements AsyncDisposable {
  readonly #client: MqttClient
  readonly #ids: readonly string[]
  sent = 0
  acknowledged = 0

  private constructor(client: MqttClient, ids: readonly string[]) {
    this.#client = client
    this.#ids = ids
  }

  static async open(mqtt: { readonly host: string; readonly port: number }, ids: readonly string[]): Promise<Poison> {
    const client = await connectAsync({ protocol: 'mqtt', ...mqtt, clientId: CLIENT_ID, reconnectPeriod: 200 })
    return new Poison(client, ids)
  }

  /** Sends until `signal` aborts, no more than a second's payloads ahead of their acknowledgements. */
  async run(perSecond: number, signal: AbortSignal): Promise<void> {
    for (; !signal.aborted; await pause(1000 / perSecond, signal)) {
      if (this.sent - this.acknowledged >= perSecond) continue
      const id = this.#ids[this.sent % this.#ids.length] as string
      const payload = PAYLOADS[this.sent % PAYLOADS.length] as string
      this.sent++
      this.#client.publish(`devices/${id}/telemetry`, payload, { qos: 1 }, (error) => {
        if (error === undefined || error === null) this.acknowledged++
      })
    }
  }

  /** Resolves when all is acknowledged, the time is over, or `signal` aborts. */
  async drain(withinMs: number, signal: AbortSignal): Promise<void> {
    const deadline = performance.now() + withinMs
    while (this.acknowledged < this.sent && performance.now() < deadline && !signal.aborted)
      await pause(LOOK_MS, signal)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#client.endAsync(true)
  }
}
