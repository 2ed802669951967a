import type { Logger } from 'pino'
import { bareStatus, isOfDevice } from './contract/status.ts'

/** Devices that are named in the log of this process; of further ones nothing is said. */
const MAX_NAMED = 100

/** What the stores hold may be of another program that writes to the changelog: readers get an object of the device all the same. */
export class ForeignStatuses {
  readonly #logger: Logger
  readonly #named = new Set<string>()

  constructor(logger: Logger) {
    this.#logger = logger
  }

  /** The stored status, or, of what is none, an object that has the device's id and nothing else. */
  shown(partition: number, deviceId: string, stored: Uint8Array): Uint8Array {
    if (isOfDevice(stored, deviceId)) return stored
    if (this.#named.size < MAX_NAMED && !this.#named.has(deviceId)) {
      this.#named.add(deviceId)
      const device = { partition, device: deviceId }
      this.#logger.error(device, 'what the changelog holds of a device is no status: it is shown by its id alone')
    }
    return Buffer.from(bareStatus(deviceId))
  }
}
