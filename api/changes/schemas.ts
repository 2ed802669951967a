import { Type } from 'typebox'
import { DeviceId, OneOf, Whole } from '../devices/schemas.ts'
import { EXAMPLE_DEVICE, type ResponseDoc } from '../http/documentation.ts'
import { END_REASONS, type EventName, eventText, RESET_REASONS, retryText } from './event.ts'
import { NOWHERE, Positions } from './resume.ts'

/** Documents the data of events: OpenAPI 3.1 has no way to describe the events of a stream. */

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

const { freshness: _, ...EXAMPLE_STATUS } = EXAMPLE_DEVICE
const positions = new Positions('example', 2)
const STATUS = JSON.stringify(EXAMPLE_STATUS)
const FIRST = positions.encode({ offsets: [977, 1042], atSeconds: 1_795_514_400 })
const SECOND = positions.encode({ offsets: [977, 1043], atSeconds: 1_795_514_401 })

const EXAMPLE = [
  retryText(1_500),
  eventText('reset', JSON.stringify({ reason: 'start', snapshot: true }), NOWHERE),
  eventText('enter', STATUS),
  eventText('snapshot-end', JSON.stringify({ count: 1 }), FIRST),
  eventText('change', STATUS),
  eventText('leave', JSON.stringify({ deviceId: 'truck-18', deleted: false }), SECOND),
].join('')

const DESCRIPTION = `From the changelog (WHATWG HTML section 9.2). A client that empties its set at \`reset\`, puts at \`enter\` and
\`change\`, and deletes at \`leave\`, comes to hold exactly the devices that match.
The schema \`ChangeEvents\` has what the data of each event is.

| event | data | |
|---|---|---|
| \`reset\` | \`{"reason", "snapshot"}\` | forget what you have: the stream begins anew, with a snapshot or without. \`start\`: it had no position; \`position-…\`: why the one it had cannot be resumed |
| \`enter\` | the status | the device is there, and matches |
| \`change\` | the status | it changed, and still matches, or a write was refused or changed nothing, and it is what it was; of changes in quick succession only the newest, at most 4 a second for a device |
| \`leave\` | \`{"deviceId", "deleted"}\` | it was deleted, or no longer matches |
| \`snapshot-end\` | \`{"count"}\` | all that matched has been told |
| \`position\` | \`{}\` | nothing changed of late: only the id is a newer one |
| \`end\` | \`{"reason"}\` | the server ends the stream: \`shutdown\`, \`slow-reader\`, \`overloaded\`, \`token-expired\`, \`token-withdrawn\`, \`unavailable\`, \`error\`. Connect again, with the last id |

The id of an event is a position in the changelog: with \`Last-Event-ID\` any instance goes on there and misses nothing. What
a client holds is not known after a resume, so \`enter\` may then come for a device that it has, and \`leave\` for one that it has
not. While a snapshot is not whole the id is \`${NOWHERE}\`, with which a stream begins anew. Events that are written together have one
id, at the last of them: to who was cut off before it, those of them that came are told again, or what is newer by then. Without \`snapshot=true\` a stream that
begins anew tells of devices as they change. Comments keep a connection open that has no position to tell.

With \`fields\` \`enter\` and \`change\` have a part of the status; a change of another field is told, too. Ask for
\`firstSeenAt\` and \`rev\` among them where what follows matters to you.

For a moment a stream may tell what is older than another answer, such as one with \`atLeast\`, or than what it told before a resume: ignore a
status that has the \`firstSeenAt\` of the one you hold and a lower \`rev\`. By \`rev\` alone you would miss a device that was deleted
and is back. Such an answer may replace what you hold, not add to it: of a device that the stream has not told it tells no \`leave\`.

An \`EventSource\` that is cut off connects again by itself, but gives up for good at any other answer than 200: then make a new one,
with \`?lastEventId=\` of the last event.`

export const EVENT_STREAM: { readonly description: string; readonly answer: ResponseDoc } = {
  description: DESCRIPTION,
  answer: {
    description: 'Events, until one side ends the stream.',
    content: { 'text/event-stream': { schema: Type.String(), examples: { stream: { value: EXAMPLE } } } },
  },
}
