import { expect, test } from 'vitest'
import { type Peer, yields } from '../../../../../processor/log/kafka/group/membership.ts'

function peer(memberId: string, since?: number | null): Peer {
  return { memberId, endpoint: `${memberId}:1`, instance: 'a', since }
}

test.each<[string, Peer, Peer]>([
  ['joined later', peer('a', 7), peer('b', 3)],
  ['has only just joined', peer('a', null), peer('b', 3)],
  ['joined in the same generation and has the larger id', peer('b', 3), peer('a', 3)],
  ['has only just joined, as the other, and has the larger id', peer('b', null), peer('a', null)],
  ['is told nothing by an older version and has the larger id', peer('b', 3), peer('a')],
  ['is of an older version and has the larger id', peer('b'), peer('a', null)],
])('of two with one name, that goes which %s', (_, goes, stays) => {
  expect(yields(goes, stays)).toBe(true)
  expect(yields(stays, goes)).toBe(false)
})
