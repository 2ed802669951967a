import { Type } from 'typebox'
import { DeviceId, OneOf, Whole } from '../devices/schemas.ts'
import { END_REASONS, type EventName, RESET_REASONS } from './event.ts'

/** The data of events. OpenAPI 3.1 cannot say of a stream what its events have, so these are for who reads them. */

const ResetEvent = Type.Object(
  { reason: OneOf(RESET_REASONS), snapshot: Type.Boolean() },
  { $id: 'ResetEvent', description: 'Forget what you have: the stream begins anew, with a snapshot or without.' },
)
const LeaveEvent = Type.Object(
  { deviceId: DeviceId, deleted: Type.Boolean({ description: 'Else it no longer matches.' }) },
  { $id: 'LeaveEvent' },
)
const SnapshotEndEvent = Type.Object(
  { count: Whole({ description: 'Devices that matched.' }) },
  { $id: 'SnapshotEndEvent', description: 'All that matched has been told.' },
)
const PositionEvent = Type.Object(
  {},
  { $id: 'PositionEvent', description: 'Nothing changed of late: only the id is newer.' },
)
const EndEvent = Type.Object(
  { reason: OneOf(END_REASONS) },
  { $id: 'EndEvent', description: 'The server ends the stream: connect again, with the last id.' },
)

const StatusEvent = Type.Union([Type.Ref('DeviceStatus#'), Type.Ref('DeviceStatusPart#')], {
  $id: 'StatusEvent',
  description: 'The status, or what was asked for of it by `fields`.',
})

const byName = {
  reset: Type.Ref('ResetEvent#'),
  enter: Type.Ref('StatusEvent#'),
  change: Type.Ref('StatusEvent#'),
  leave: Type.Ref('LeaveEvent#'),
  'snapshot-end': Type.Ref('SnapshotEndEvent#'),
  position: Type.Ref('PositionEvent#'),
  end: Type.Ref('EndEvent#'),
} satisfies Record<EventName, object>

const ChangeEvents = Type.Object(byName, {
  $id: 'ChangeEvents',
  description: 'What the data of each event of a stream of changes is, by the name of the event. No answer is one.',
})

export const CHANGES_COMPONENTS = [
  ResetEvent,
  StatusEvent,
  LeaveEvent,
  SnapshotEndEvent,
  PositionEvent,
  EndEvent,
  ChangeEvents,
]
