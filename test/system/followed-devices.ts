import type { EventSource } from 'eventsource'
import type { Status } from '../../processor/contract/status.ts'

/** One set of devices, kept by streams from one process after the other, as the API says that a client does it. */
export class FollowedDevices {
  readonly devices = new Map<string, Status>()
  readonly resets: string[] = []
  events = 0
  lastEventId = ''

  /** Applies what `source` tells. */
  follow(source: EventSource): void {
    const on = (name: string, apply: (data: string) => void): void => {
      source.addEventListener(name, (event) => {
        this.events++
        if (event.lastEventId !== '') this.lastEventId = event.lastEventId
        apply(event.data as string)
      })
    }
    const put = (data: string): void => {
      const status = JSON.parse(data) as Status
      this.devices.set(status.deviceId, status)
    }
    on('enter', put)
    on('change', put)
    on('leave', (data) => this.devices.delete((JSON.parse(data) as Status).deviceId))
    on('reset', (data) => {
      this.devices.clear()
      this.resets.push((JSON.parse(data) as { reason: string }).reason)
    })
    on('snapshot-end', () => {})
  }
}
