import { Type } from 'typebox'
import { type Position, parsePosition } from '../../processor/contract/position.ts'
import type { Answer, StatusReader } from '../../processor/contract/query.ts'
import { problemAnswers, type ResponseDoc } from '../http/documentation.ts'
import { ProblemError } from '../http/problem.ts'

/** How long a read waits for the position that it asks for, ms. */
const AT_LEAST_MS = 2_000

export const AtLeast = Type.Optional(
  Type.String({
    pattern: '^(0|[1-9][0-9]{0,4})-(0|[1-9][0-9]{0,15})$',
    description:
      'The `position` of a write: the answer includes it, from whichever instance. It is waited for, for up to 2 s.',
    examples: ['6-41'],
  }),
)

/** The last status of a device; of a copy that includes the record at `atLeast`, when that is given. */
export function readDevice(reader: StatusReader, deviceId: string, atLeast: string | undefined): Promise<Answer> {
  if (atLeast === undefined) return reader.get(deviceId)
  return reader.getPast(positionOf(reader, deviceId, atLeast), deviceId, AT_LEAST_MS)
}

/** Of a read of one device, also by its `atLeast` and its conditions. */
export function readProblems(): Record<string, ResponseDoc> {
  return problemAnswers(
    'unknown-device',
    'precondition-failed',
    'partition-unavailable',
    'position-not-reached',
    'overloaded',
  )
}

function positionOf(reader: StatusReader, deviceId: string, text: string): Position {
  const position = parsePosition(text)
  if (position === undefined) throw ProblemError.invalid([{ field: 'atLeast', message: 'is not a position' }])
  const partition = reader.partitionOf(deviceId)
  if (position.partition !== partition) {
    const message = `is a position of partition ${position.partition}, and device ${deviceId} lives in partition ${partition}`
    throw ProblemError.invalid([{ field: 'atLeast', message }])
  }
  return position
}
