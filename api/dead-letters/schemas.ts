import { Type } from 'typebox'
import { REJECTION_REASONS } from '../../processor/contract/dead-letter.ts'
import { DeviceId, OneOf, Whole } from '../devices/schemas.ts'
import { jsonAnswer, NEXT_LINK, problemAnswers } from '../http/documentation.ts'
import { MAX_LETTERS_CURSOR, SHOWN_PAYLOAD_BYTES, SHOWN_TEXT_LENGTH } from './reading.ts'

export const DEFAULT_LIMIT = 100

const Count = Whole()
const Text = Type.String()
const OrNull = (schema: object, description: string) => Type.Union([schema, Type.Null()], { description })

const Payload = Type.Object(
  {
    encoding: OneOf(['text', 'base64'], { description: 'text: the payload is UTF-8; base64: it is not.' }),
    content: Text,
    bytes: Whole({ description: 'Of the whole payload.' }),
    shownBytes: Type.Optional(
      Whole({
        description: `Only when the payload is longer: \`content\` has so many of its first bytes, ${SHOWN_PAYLOAD_BYTES} at most.`,
      }),
    ),
  },
  { $id: 'DeadLetterPayload' },
)

const Letter = Type.Object(
  {
    partition: Count,
    offset: Count,
    at: OrNull(Type.String({ format: 'date-time' }), 'When the message came in; null: it has no time that can be.'),
    reason: OrNull(Text, 'Why it has no effect; null for a letter of another writer that does not say.'),
    deviceId: OrNull(DeviceId, 'null: the letter tells no device.'),
    key: OrNull(Text, 'Of the record: the device id, or what another writer put there.'),
    topic: Type.Optional(Type.String({ description: 'MQTT topic, where ingest put the letter.' })),
    position: Type.Optional(
      Type.String({ description: 'Where the record is in the telemetry log, where a processor put the letter.' }),
    ),
    timestamp: Type.Optional(Type.String({ description: 'The impossible time that the record had.' })),
    truncated: Type.Optional(
      Type.String({ description: 'What of the letter itself was cut, and its bytes: `value=3145728`.' }),
    ),
    headers: Type.Optional(
      Type.Record(Type.String(), Text, { description: 'Further headers of the record, such as `metric` or `kind`.' }),
    ),
    payload: Type.Union([Type.Ref('DeadLetterPayload#'), Type.Null()], {
      description: 'What the device sent; null: nothing, not even no bytes.',
    }),
    shortened: Type.Optional(
      Type.Array(Text, {
        description: `Members of which only the beginning is shown, ${SHOWN_TEXT_LENGTH} characters, or of headers those that fit into so many; absent when there are none.`,
      }),
    ),
  },
  { $id: 'DeadLetter' },
)

const LetterPage = Type.Object(
  {
    items: Type.Array(Type.Ref('DeadLetter#')),
    nextCursor: Type.Optional(
      Type.String({ description: 'Where the next page begins; absent when there are no older letters.' }),
    ),
    complete: Type.Optional(Type.Literal(false, { description: 'Not all that had to be examined was; see `reason`.' })),
    reason: Type.Optional(Text),
  },
  { $id: 'DeadLetterPage' },
)

export const LETTER_COMPONENTS = [Payload, Letter, LetterPage]

export const LIST_LETTERS = {
  operationId: 'listDeadLetters',
  summary: 'What could not be used, newest first',
  description:
    'Messages and records without effect, each with the reason and what was sent. Partitions are merged by the time of their newest letters; within one the later letter comes first. Pages taken one after the other have each letter that was there at the first one exactly once, and no later ones; what retention removes meanwhile is left out. When the budget of one answer is spent before all that had to be examined was, it says `"complete":false`, and has a cursor to go on by: such a page may have fewer letters, or none, and they may be older than some of the next. Only the absence of `nextCursor` says that a page is the last.',
  querystring: Type.Object(
    {
      limit: Type.Optional(
        Type.Integer({ minimum: 1, maximum: 1000, default: DEFAULT_LIMIT, description: 'Most letters in the page.' }),
      ),
      cursor: Type.Optional(
        Type.String({
          pattern: '^[0-9a-z.-]+$',
          maxLength: MAX_LETTERS_CURSOR,
          description: '`nextCursor` of the page before, with the same filters. Only this API can make one.',
        }),
      ),
      reason: Type.Optional(
        OneOf(REJECTION_REASONS, {
          description: 'Only those of this reason.',
          examples: ['not-json'],
        }),
      ),
      deviceId: Type.Optional({ ...DeviceId, description: 'Letters of this device; only its partition is read.' }),
      partition: Type.Optional(Whole({ description: 'Only those of this partition.' })),
    },
    { additionalProperties: false },
  ),
  response: {
    200: {
      ...jsonAnswer('A page.', 'DeadLetterPage', {
        items: [
          {
            partition: 6,
            offset: 17,
            at: '2026-11-24T10:00:00.120Z',
            reason: 'not-json',
            deviceId: 'truck-17',
            key: 'truck-17',
            position: '6-1042',
            payload: { encoding: 'text', content: '{"temperature":', bytes: 15 },
          },
          {
            partition: 0,
            offset: 4,
            at: '2026-11-24T09:58:00.007Z',
            reason: 'bad-topic',
            deviceId: null,
            key: null,
            topic: 'fleet/truck-17/telemetry',
            payload: { encoding: 'base64', content: '/wA=', bytes: 2 },
          },
        ],
        nextCursor: 'f1a6c44d97b3a218.4.2.-.h',
      }),
      headers: NEXT_LINK,
    },
    ...problemAnswers('log-unavailable', 'overloaded'),
  },
}
