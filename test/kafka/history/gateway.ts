import { Session, type SessionObserver } from '../../../simulators/fleet/session.ts'
import type { Random } from '../../../simulators/random.ts'

/** Messages that may wait while there is no ingest. */
const MAX_PENDING = 500

/** One connection that speaks for many devices, now and then: what they are is mostly what people write. */
export class Gateway implements SessionObserver, AsyncDisposable {
  said = 0
  heard = 0
  readonly #session: Session

  constructor(port: number, random: Random) {
    this.#session = new Session(
      {
        host: '127.0.0.1',
        port,
        id: 'gateway',
        qos: 1,
        localAddress: undefined,
        will: undefined,
        maxPending: MAX_PENDING,
        maxBackOffMs: 250,
        random,
        now: () => performance.now(),
      },
      this,
    )
    this.#session.connect()
  }

  /** Something new of the device, that makes it when it is not there. */
  say(deviceId: string): void {
    const payload = JSON.stringify({ load: this.said % 4, said: this.said })
    const message = { device: 0, topic: `devices/${deviceId}/telemetry`, payload, messages: 1 }
    if (this.#session.publish(message)) this.said++
  }

  acknowledged(): void {
    this.heard++
  }

  connected(): void {}
  disconnected(): void {}
  resent(): void {}
  slept(): void {}

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#session.end()
  }
}
