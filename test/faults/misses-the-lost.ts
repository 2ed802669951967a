import { Presence } from '../../ingest/mqtt/presence.ts'
import type { Session } from '../../ingest/mqtt/session.ts'

/** `node main.ts` with a fault: a device whose connection is lost stays online. */
const end = Reflect.get(Presence.prototype, 'end') as (this: Presence, session: Session, ...rest: string[]) => void
Presence.prototype.end = function (this: Presence, session, state, reason): void {
  if (reason !== 'connection lost') end.call(this, session, state, reason)
}

await import('../../main.ts')
