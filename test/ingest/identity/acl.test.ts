import { array, assert, constantFrom, property } from 'fast-check'
import { expect, it, test } from 'vitest'
import { Acl, covers } from '../../../ingest/identity/acl.ts'
import { matches } from '../../../ingest/mqtt/topics.ts'

const FILE = `
# for clients without a name
topic read news/#
user dashboard
topic read devices/#
topic deny devices/secret/#
topic plans/today
user gateway 7
topic write devices/+/telemetry
pattern readwrite rooms/%u/%c/#
`

it('reads the lines of Mosquitto: rights of a user, of all, and of clients without a name', async () => {
  const acl = await Acl.parse(FILE)
  expect(acl.rulesFor(undefined, 'x')).toEqual([{ access: 'read', filter: 'news/#' }])
  expect(acl.rulesFor('dashboard', 'dashboard/1')).toEqual([
    { access: 'read', filter: 'devices/#' },
    { access: 'deny', filter: 'devices/secret/#' },
    { access: 'readwrite', filter: 'plans/today' },
    { access: 'readwrite', filter: 'rooms/dashboard/dashboard/1/#' },
  ])
  expect(acl.rulesFor('gateway 7', 'c')).toContainEqual({ access: 'write', filter: 'devices/+/telemetry' })
})

it('lets no wildcard in a name or a client id widen a pattern', async () => {
  const acl = await Acl.parse('pattern read a/%u\npattern read b/%c\n')
  expect(acl.rulesFor('+', 'c')).toEqual([])
  expect(acl.rulesFor('x', '#')).toEqual([{ access: 'read', filter: 'a/x' }])
  expect(acl.rulesFor('$&', 'c')).toContainEqual({ access: 'read', filter: 'a/$&' })
})

test.each([
  ['allow all', /^line 1: must begin with user, topic or pattern$/],
  ['user x\ntopic', /^line 2: a topic is missing$/],
  ['user', /^line 1: a name is missing$/],
  ['topic read a/#/b', /^line 1: .*no topic filter/],
  ['topic read a+', /^line 1: .*no topic filter/],
])('refuses %j by its line', async (text, reason) => {
  await expect(Acl.parse(text)).rejects.toThrow(reason)
})

test.each([
  ['#', 'a/b', true],
  ['#', '#', true],
  ['a/#', 'a', true],
  ['a/#', 'a/+/c', true],
  ['a/+', 'a/b', true],
  ['a/+', 'a/#', false],
  ['a/+', 'a/b/c', false],
  ['a/b', 'a/+', false],
  ['#', '$SYS/x', false],
  ['+/x', '$SYS/x', false],
])('%s covers %s: %s', (filter, other, expected) => {
  expect(covers(filter, other)).toBe(expected)
})

it('covers a filter only if it matches every topic that the filter matches', () => {
  const level = constantFrom('a', 'b', '+', '')
  const filters = array(level, { minLength: 1, maxLength: 3 }).chain((levels) =>
    constantFrom(levels.join('/'), [...levels, '#'].join('/'), '#'),
  )
  const topics = array(constantFrom('a', 'b', ''), { minLength: 1, maxLength: 4 }).map((levels) => levels.join('/'))
  assert(
    property(filters, filters, array(topics, { minLength: 20, maxLength: 20 }), (wide, narrow, samples) => {
      if (!covers(wide, narrow)) return
      for (const topic of samples) if (matches(narrow, topic)) expect(matches(wide, topic), topic).toBe(true)
    }),
  )
})
