import { Type } from 'typebox'
import { Compile } from 'typebox/compile'
import type { Freshness } from '../../../processor/contract/query.ts'
import type { Status } from '../../../processor/contract/status.ts'

export type DeviceAnswer = Status & { readonly freshness: Freshness }

/** What is read of an answer here; a drill has its own idea of it, as any client has. */
const SHAPE = Compile(
  Type.Object({
    deviceId: Type.String(),
    rev: Type.Number(),
    reported: Type.Record(Type.String(), Type.Object({ at: Type.String() })),
    connectivity: Type.Object({ state: Type.String(), reason: Type.String(), session: Type.Number() }),
    counters: Type.Object({ messages: Type.Number(), duplicates: Type.Number() }),
    sequence: Type.Optional(Type.Object({ seen: Type.Array(Type.Array(Type.Number(), { minItems: 2 })) })),
    freshness: Type.Object({
      partition: Type.Number(),
      offset: Type.Number(),
      servedBy: Type.Enum(['owner', 'standby']),
    }),
  }),
)
const MAX_TOLD_CHARACTERS = 200

/** The answer with the status of the device `id` in this JSON. Throws, in one line, when it is none. */
export function answerIn(text: string, id: string): DeviceAnswer {
  const answer = parsed(text)
  if (!isAnswer(answer)) throw new Error(`no status: ${text.slice(0, MAX_TOLD_CHARACTERS)}`)
  if (answer.deviceId !== id) throw new Error(`the status of ${answer.deviceId}`)
  return answer
}

export function isAnswer(of: unknown): of is DeviceAnswer {
  return SHAPE.Check(of)
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
