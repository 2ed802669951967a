import { expect, test } from 'vitest'
import { decodeAssignment, encodeAssignment, telemetryOf } from '../../../../../processor/log/kafka/group/membership.ts'
import { topicNames } from '../../../../../processor/log/kafka/topics.ts'

const of = (telemetry: string, since?: number | null) => ({ telemetry, since })

test.each<[string, ReturnType<typeof of>[]]>([
  ['of the member that was in it first', [of('b', 7), of('b', 7), of('a', 3), of('b', null)]],
  ['of one that was in it before all who have only just joined', [of('b', null), of('a', 9), of('b')]],
  ['of most, where all have only just joined', [of('b', null), of('a', null), of('a', null)]],
  ['the same for every leader, where two have only just joined', [of('b', null), of('a', null)]],
])('the topics of a group are those %s', (_, members) => {
  expect(telemetryOf(members)).toBe('a')
  expect(telemetryOf(members.toReversed())).toBe('a')
})

test('a stranger is told the topics of the group, and a member nothing', () => {
  const [ours, theirs] = [topicNames('a'), topicNames('b')]
  const nothing = { active: [], standby: [], moving: [], heir: [], peers: [] }
  const told = encodeAssignment(ours, { ...nothing, stranger: ours.telemetry })
  expect(decodeAssignment(theirs, told)).toEqual({ ...nothing, stranger: 'a.telemetry' })
  expect(encodeAssignment(ours, nothing).toString()).not.toContain('stranger')
})
