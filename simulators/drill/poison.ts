import { connectAsync, type MqttClient } from 'mqtt'
import { pause } from '../schedule.ts'

/** What devices with a bug send. */
const PAYLOADS = [
  '{"temperature":',
  '[]',
  '42',
  '{"values":{"t":1e999}}',
  '\u00ff\u0000',
  '{"seq":"one","values":{"t":1}}',
]
const CLIENT_ID = 'poisoner'

/** Sends bad payloads in the name of the fleet's devices. */
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

  async run(perSecond: number, signal: AbortSignal): Promise<void> {
    const under: Promise<unknown>[] = []
    while (!signal.aborted) {
      const id = this.#ids[this.sent % this.#ids.length] as string
      const payload = PAYLOADS[this.sent % PAYLOADS.length] as string
      this.sent++
      under.push(
        this.#client.publishAsync(`devices/${id}/telemetry`, payload, { qos: 1 }).then(() => this.acknowledged++),
      )
      if (under.length >= perSecond) await Promise.all(under.splice(0))
      await pause(1000 / perSecond, signal)
    }
    await Promise.all(under)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#client.endAsync(true)
  }
}
