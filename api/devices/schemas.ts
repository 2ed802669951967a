import { Type } from 'typebox'
import { FIELD_NAMES } from '../../processor/contract/field.ts'
import { CONNECTIVITY_REASONS } from '../../processor/contract/status.ts'

/** Schemas of the HTTP API, for validation and for the OpenAPI document. */

export const DeviceId = Type.String({
  pattern: '^[A-Za-z0-9._:-]+$',
  minLength: 1,
  maxLength: 128,
  description: '1 to 128 of `A-Za-z0-9._:-`.',
  examples: ['truck-17'],
})

export const ONE_DEVICE = Type.Object({ deviceId: DeviceId })

export const Fields = Type.String({
  minLength: 1,
  maxLength: 4_096,
  description: `Only these fields, and the device id: up to 64 names with commas between them, \`\\,\` for a comma in a name. ${FIELD_NAMES}, or a group of them. What a device lacks is left out.`,
  examples: ['connectivity.state,reported.temperature'],
})

/** Code generators take an integer without a format for 32 bits, which is too few for a session. */
export function Whole(options: { readonly description?: string } = {}) {
  return Type.Integer({ minimum: 0, format: 'int64', ...options })
}

/** Code generators take an enum without a type for any value, so the type stands beside the values. */
export function OneOf<const Values extends string[]>(
  values: readonly [...Values],
  options: { readonly description?: string; readonly examples?: readonly NoInfer<Values>[number][] } = {},
) {
  return Type.Enum(values, { type: 'string', ...options })
}

const Time = Type.String({ format: 'date-time', description: 'ISO 8601, milliseconds, UTC.' })
const Count = Whole()

const Freshness = Type.Object(
  {
    partition: Whole({ description: 'The partition of the log in which the device lives.' }),
    offset: Whole({
      description:
        'Input position: the answer includes all records before it, and may include later ones. That an answer of any instance includes a write, `atLeast` makes sure.',
    }),
    lag: Whole({ description: 'Records of the partition not yet in the answer when it was given.' }),
    servedBy: OneOf(['owner', 'standby'], {
      description:
        'owner: the owner of the partition answered, with all that it knows to be committed. standby: a standby did, or an owner that restores, ' +
        'or may have been replaced, or does not know what became of a commit; the answer may be older.',
    }),
  },
  { $id: 'Freshness', description: 'How fresh an answer is.' },
)

const anyAttributes = Type.Record(Type.String(), Type.Unknown({ description: 'Any JSON value.' }))
const aboutAttributes = {
  description:
    'What people say of a device: any JSON object of up to 8 KiB, nested up to 16 deep, without names that are empty, are `__proto__` or need an escape in JSON. A device of which nothing is said has none.',
  examples: [{ type: 'van', site: 'k1', tags: ['cold-chain'] }],
}

/** Has no id, because a body is validated by itself. */
export const AttributesBody = { ...anyAttributes, ...aboutAttributes }
const Attributes = { ...anyAttributes, ...aboutAttributes, $id: 'Attributes' }

const Written = Type.Object(
  { position: Type.String({ description: '`<partition>-<offset>` in the log: what `atLeast` takes.' }) },
  { $id: 'Written', description: 'Where a write is.' },
)

const Connectivity = Type.Object({
  state: OneOf(['online', 'offline', 'unknown']),
  since: Time,
  reason: OneOf(CONNECTIVITY_REASONS),
  session: Whole({ description: 'Epoch of the MQTT session; 0: none was seen.' }),
})

const Counters = Type.Object({ messages: Count, late: Count, duplicates: Count, skewed: Count })

const status = {
  deviceId: DeviceId,
  rev: Whole({ description: 'Grows by one with every record that changes the status.' }),
  reported: Type.Record(
    Type.String(),
    Type.Object({ value: Type.Unknown({ description: 'Any JSON value.' }), at: Time }),
    { description: 'The newest value of each metric and the time at which it held.' },
  ),
  connectivity: Connectivity,
  firstSeenAt: Time,
  lastSeenAt: Time,
  counters: Counters,
  sequence: Type.Optional(
    Type.Object(
      { seen: Type.Array(Type.Array(Count, { minItems: 2, maxItems: 2 })), at: Type.Optional(Time), session: Count },
      { description: 'Which `seq` numbers were applied; absent while the device sends none.' },
    ),
  ),
  attributes: Type.Optional(Type.Ref('Attributes#')),
  freshness: Type.Ref('Freshness#'),
}

const Device = Type.Object(status, { $id: 'Device', description: 'The last status of a device.' })

const part = {
  ...Type.Partial(Type.Object(status)).properties,
  deviceId: DeviceId,
  reported: Type.Optional(Type.Record(Type.String(), Type.Partial(Type.Object({ value: Type.Unknown(), at: Time })))),
  connectivity: Type.Optional(Type.Partial(Connectivity)),
  counters: Type.Optional(Type.Partial(Counters)),
  freshness: Type.Ref('Freshness#'),
}

const DevicePart = Type.Object(part, {
  $id: 'DevicePart',
  description: 'The fields that were asked for, of those that the device has.',
})

const { freshness: _, ...told } = status
const DeviceStatus = Type.Object(told, {
  $id: 'DeviceStatus',
  description: 'The status of a device as streams of changes tell it.',
})

const { freshness: _part, ...toldPart } = part
const DeviceStatusPart = Type.Object(toldPart, {
  $id: 'DeviceStatusPart',
  description: 'The fields that a stream of changes was asked for, of those that the device has.',
})

const FieldError = Type.Object(
  {
    field: Type.String(),
    message: Type.String(),
    position: Type.Optional(
      Whole({
        description: 'In `q`, the first character that is wrong: from 0, in UTF-16 code units, as JavaScript counts.',
      }),
    ),
  },
  { $id: 'FieldError' },
)

const Problem = Type.Object(
  {
    type: Type.String({ format: 'uri', description: 'Names the kind of problem; never changes.' }),
    title: Type.String(),
    status: Type.Integer({ minimum: 400, maximum: 599 }),
    detail: Type.String(),
    instance: Type.Optional(Type.String({ format: 'uri-reference', description: 'The path that was asked for.' })),
    errors: Type.Optional(
      Type.Array(Type.Ref('FieldError#'), {
        description:
          'What is wrong with which parameter, header or place in the body; or what a process is not ready for.',
      }),
    ),
    freshness: Type.Optional(Type.Ref('Freshness#')),
    position: Type.Optional(Type.String({ description: 'Where the write is in the log.' })),
  },
  { $id: 'Problem', description: 'An error, as RFC 9457 has it.' },
)

const DevicePage = Type.Object(
  {
    items: Type.Array(Type.Union([Type.Ref('Device#'), Type.Ref('DevicePart#')])),
    nextCursor: Type.Optional(Type.String({ description: 'Where the next page begins; absent on the last page.' })),
    complete: Type.Optional(
      Type.Literal(false, { description: 'The time was over before all that had to be examined was; see `reason`.' }),
    ),
    reason: Type.Optional(Type.String()),
  },
  { $id: 'DevicePage' },
)

/** Each has a name: code generators make a type of a named schema and stumble over inline ones. */
const FoundDevice = Type.Object({ ...status, found: Type.Literal(true) }, { $id: 'FoundDevice' })
const FoundDevicePart = Type.Object({ ...part, found: Type.Literal(true) }, { $id: 'FoundDevicePart' })
const NoDevice = Type.Object(
  { deviceId: DeviceId, found: Type.Literal(false), freshness: Type.Ref('Freshness#') },
  { $id: 'NoDevice' },
)
const DeviceError = Type.Object(
  {
    deviceId: DeviceId,
    found: Type.Null({ description: 'Why it is not said whether there is the device, `error` tells.' }),
    error: Type.Ref('Problem#'),
  },
  { $id: 'DeviceError' },
)

const BatchResult = Type.Union(
  [Type.Ref('FoundDevice#'), Type.Ref('FoundDevicePart#'), Type.Ref('NoDevice#'), Type.Ref('DeviceError#')],
  {
    $id: 'BatchResult',
    description:
      'A status (`found` is true), or that the device is not known (false), or why neither can be said now (null).',
  },
)

const BatchResults = Type.Object({ results: Type.Array(Type.Ref('BatchResult#')) }, { $id: 'BatchResults' })

const Copy = Type.Object(
  {
    instance: Type.String(),
    state: OneOf(['restoring', 'running']),
    offset: Whole({ description: 'Input position reached.' }),
    changelogOffset: Whole({ description: 'Changelog position reached.' }),
    lag: Type.Union([Count, Type.Null()], {
      description:
        'Records that wait: of the input, after what is committed; for a standby, of the changelog. null while the end is not known.',
    }),
    devices: Type.Union([Count, Type.Null()], {
      description: 'Devices held; null until the copy has been whole, and while they are being counted.',
    }),
    restore: Type.Optional(
      Type.Object(
        {
          remaining: Whole({
            description: 'Changelog offsets still to be read: records, and the gaps that compaction left.',
          }),
          recordsPerSecond: Whole({ description: 'Offsets a second, in the last seconds.' }),
          etaSeconds: Type.Union([Count, Type.Null()], { description: 'null while the rate is not known.' }),
        },
        { description: 'How far a copy is on its way to be whole; only while it is restoring.' },
      ),
    ),
  },
  { $id: 'Copy', description: 'One copy of a partition.' },
)

const PartitionCopies = Type.Object(
  {
    partition: Count,
    owner: Type.Union([Type.Ref('Copy#'), Type.Null()], { description: 'null: nobody owns the partition now.' }),
    standbys: Type.Array(Type.Ref('Copy#')),
  },
  { $id: 'PartitionCopies' },
)

const Partitions = Type.Object(
  {
    partitions: Type.Array(Type.Ref('PartitionCopies#')),
    totals: Type.Object({
      partitions: Count,
      owned: Whole({ description: 'Partitions with an owner that is running.' }),
      lag: Type.Union([Count, Type.Null()], { description: "Sum of the owners' lags; null while one is not known." }),
      devices: Type.Union([Count, Type.Null()], { description: 'null while a partition is not counted.' }),
    }),
  },
  { $id: 'Partitions' },
)

/** Components that other schemas refer to by name. */
export const DEVICE_COMPONENTS = [
  Freshness,
  Attributes,
  Written,
  Device,
  DeviceStatus,
  DevicePart,
  DeviceStatusPart,
  FieldError,
  Problem,
  DevicePage,
  FoundDevice,
  FoundDevicePart,
  NoDevice,
  DeviceError,
  BatchResult,
  BatchResults,
  Copy,
  PartitionCopies,
  Partitions,
]
