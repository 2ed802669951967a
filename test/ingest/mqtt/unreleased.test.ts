import { expect, it } from 'vitest'
import { UnreleasedIds } from '../../../ingest/mqtt/persistence.ts'

it('an append that fails late takes nothing from the session that has begun anew under the same id', () => {
  const ids = new UnreleasedIds(2, () => false)
  const before = ids.add('a', 1)
  ids.clear('a')
  const now = ids.add('a', 1)
  ids.delete('a', 1, before)
  expect(ids.get('a', 1)).toBe(now)
  ids.add('a', 2)
  expect(ids.hasRoom()).toBe(false)
  ids.delete('a', 1, now)
  expect(ids.hasRoom()).toBe(true)
})
