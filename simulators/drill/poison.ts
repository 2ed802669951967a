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
/** Longest wait for what is under way at the end, ms. */
const DRAIN_MS = 30_000

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

  /** Until `signal` aborts, and what is under way is acknowledged, or the time for that is over. */
  async run(perSecond: number, signal: AbortSignal): Promise<void> {
    const under: Promise<unknown>[] = []
    while (!signal.aborted) {
      const id = this.#ids[this.sent % this.#ids.length] as string
      const payload = PAYLOADS[this.sent % PAYLOADS.length] as string
      this.sent++
      under.push(
        this.#client.publishAsync(`devices/${id}/telemetry`, payload, { qos: 1 }).then(() => this.acknowledged++),
      )
      if (under.length >= perSecond) await Promise.race([Promise.all(under.splice(0)), aborted(signal)])
      await pause(1000 / perSecond, signal)
    }
    const acknowledged = new AbortController()
    void Promise.all(under).then(() => acknowledged.abort())
    await pause(DRAIN_MS, acknowledged.signal)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#client.endAsync(true)
  }
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve()
    else signal.addEventListener('abort', () => resolve(), { once: true })
  })
}
