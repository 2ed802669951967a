import type { Logger } from 'pino'
import { isBare, readableStatus } from '../contract/status.ts'

/** Devices that are named in the log of this process; of further ones nothing is said. */
const MAX_NAMED = 100

/** What the stores hold may be of another program that writes to the changelog: readers get an object of the device all the same. */
export class ForeignStatuses {
  readonly #logger: Logger
  readonly #named = new Set<string>()

  constructor(logger: Logger) {
    this.#logger = logger
  }

  shown(partition: number, deviceId: string, stored: Uint8Array): Uint8Array {
    const status = readableStatus(stored, deviceId)
    // A search has replaced what is none itself.
    if (isBare(status, deviceId) && this.#named.size < MAX_NAMED && !this.#named.has(deviceId)) {
      this.#named.add(deviceId)
      const device = { partition, device: deviceId }
      this.#logger.error(device, 'what the changelog holds of a device is no status: it is shown by its id alone')
    }
    return status
  }
}
