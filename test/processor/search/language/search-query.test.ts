import { describe, expect, it } from 'vitest'
import { printQuery, QuerySyntaxError } from '../../../../processor/contract/search.ts'
import type { Status } from '../../../../processor/contract/status.ts'
import { Matcher } from '../../../../processor/search/language/match.ts'
import { parseQuery } from '../../../../processor/search/language/parser.ts'

const AT = '2026-11-24T10:00:00.000Z'

function truck(changes: Partial<Status> = {}): Status {
  return {
    deviceId: 'truck-17',
    rev: 42,
    reported: {
      battery: { value: 18, at: AT },
      'pos.lat': { value: 52.5, at: AT },
      mode: { value: 'eco drive', at: AT },
      charging: { value: false, at: AT },
      fault: { value: null, at: AT },
      alarms: { value: ['door', 7], at: AT },
      'odd name:x': { value: '*', at: AT },
      'door.at': { value: 'gate', at: AT },
    },
    connectivity: { state: 'offline', since: AT, reason: 'connection lost', session: 3 },
    firstSeenAt: '2026-11-20T07:00:00.000Z',
    lastSeenAt: '2026-11-24T10:00:00.120Z',
    counters: { messages: 42, late: 0, duplicates: 0, skewed: 0 },
    attributes: { site: 'k1', type: 'truck', tags: ['red', 'big'], owner: { name: 'Ada', 'a.b': 1 }, year: 2021 },
    ...changes,
  }
}

const holds = (query: string, status: Status = truck()) => new Matcher(parseQuery(query)).matches(status)

describe('a query', () => {
  it('takes no day that its month lacks for one of the next', () => {
    const march = truck({ firstSeenAt: '2026-03-02T00:00:00.000Z' })
    expect(holds('firstSeenAt:2026-03-02T00:00:00Z', march)).toBe(true)
    expect(holds('firstSeenAt:2026-03-02', march)).toBe(true)
    for (const no of ['2026-02-30T00:00:00Z', '2026-02-30', '2026-02-3', '2026-13']) {
      expect(refusal(`firstSeenAt:>${no}`).message).toContain('no time')
      expect(refusal(`firstSeenAt:${no}`).message).toContain('no time')
    }
  })

  it.each([
    ['', true],
    ['*', true],
    ['*:*', true],
    ['connectivity.state:offline AND reported.battery:<20 AND attributes.site:k1', true],
    ['connectivity.state:online', false],
    ['NOT connectivity.state:online', true],
    ['NOT(connectivity.state:online)', true],
    ['-connectivity.state:online !attributes.site:k2', true],
    ['attributes.site:k2 OR reported.battery:>=18', true],
    ['attributes.site:k2 || attributes.site:k3 && rev:42', false],
    ['attributes.site:k1 OR rev:1 AND rev:2', true],
    ['(attributes.site:k1 OR rev:1) AND rev:2', false],
    ['attributes.site:(k2 OR k1)', true],
    ['attributes.tags:(red AND big)', true],
    ['attributes.tags:(red big "-green")', false],
    ['reported.battery:(-5 OR 18)', true],
    ['attributes.tags:(red big NOT green)', true],
    ['reported.battery:(>10 AND <=18)', true],
    ['reported.battery:( > 10 AND <= 18 )', true],
    ['reported.battery:[18 TO 20]', true],
    ['reported.battery:{18 TO 20]', false],
    ['reported.battery:[10 TO 18}', false],
    ['reported.battery:[* TO 18]', true],
    ['reported.battery:[ * TO 18 ]', true],
    ['reported.battery:[19 TO *]', false],
    ['reported.battery:[-5 TO 1.8e1]', true],
    ['reported.battery:18', true],
    ['reported.battery:18.0', true],
    ['reported.battery:"18"', false],
    ['reported.battery:1*', false],
    ['reported.charging:false', true],
    ['reported.charging:"false"', false],
    ['reported.fault:null', true],
    ['reported.fault:*', true],
    ['reported.absent:*', false],
    ['_exists_:reported.fault', true],
    ['_exists_:reported.absent', false],
    ['NOT _exists_:reported.absent AND _exists_:attributes', true],
    ['(_exists_:reported.odd\\ name\\:x)', true],
    ['NOT reported.absent:*', true],
    ['reported.absent:>0', false],
    ['reported.pos.lat:>52', true],
    ['reported.mode:"eco drive"', true],
    ['reported.mode:eco\\ drive', true],
    ['reported.mode:eco*', true],
    ['reported.mode:*dr?ve', true],
    ['reported.mode:*dr??ve', false],
    ['reported.mode:>eco', true],
    ['reported.alarms:door', true],
    ['reported.alarms:>6', true],
    ['reported.odd\\ name\\:x:\\*', true],
    ['reported.odd\\ name\\:x:"*"', true],
    ['reported.odd\\ name\\:x:?', true],
    ['reported.battery.at:>=2026-11-24T10:00:00Z', true],
    ['reported.battery.at:>2026-11-24T11:00+01:00', false],
    ['reported.door.at:gate', true],
    ['lastSeenAt:>2026-11-24T10:00:00.119Z', true],
    ['lastSeenAt:[2026-11-24 TO 2026-11-25]', true],
    ['lastSeenAt:<2026-11-24', false],
    ['lastSeenAt:<2026-11-24T10:01', true],
    ['lastSeenAt:<2026-11-24T11:00:00.5+01:00', true],
    ['lastSeenAt:>"2026-11-24T10:00:00"', false],
    ['lastSeenAt:>="2026-11-24T10:00:00"', true],
    ['lastSeenAt:[2026-11-01 TO 2026-11-24]', true],
    ['lastSeenAt:[2026-11-01 TO 2026-11-24}', false],
    ['lastSeenAt:{2026-11-24 TO *]', false],
    ['lastSeenAt:<=2026-11', true],
    ['lastSeenAt:>2026-11', false],
    ['lastSeenAt:2026-11-24', true],
    ['lastSeenAt:"2026-11-24T10:00"', true],
    ['lastSeenAt:2026-11-23', false],
    ['lastSeenAt:(2026-11-23 OR 2026-11-24)', true],
    ['lastSeenAt:<2026-11-30', true],
    ['reported.battery.at:2026-11-24', true],
    ['reported.battery.at:2026-11', true],
    ['reported.battery.at:2026-12', false],
    ['reported.battery.at:>2026-11-24', false],
    ['lastSeenAt:>0001-01-01T00:00:00Z', true],
    ['lastSeenAt:<0000-01-01T00:00:00+01:00', false],
    ['lastSeenAt:>=0000-01-01T00:00:00+01:00', true],
    ['lastSeenAt:>1969-12-31T00:00:00Z', true],
    ['lastSeenAt:<1969-12-31T23:59:59.9999Z', false],
    ['lastSeenAt:<9999-12-31T23:59:59-01:00', true],
    ['lastSeenAt:[9999-12-31T23:59:59-01:00 TO *]', false],
    ['lastSeenAt:>2026-11-24T10:00:00.119999', true],
    ['lastSeenAt:>2026-11-24T10:00:00.1200', false],
    ['lastSeenAt:<2026-11-24T10:00:00.120456', true],
    ['lastSeenAt:<=2026-11-24T10:00:00.120456789', true],
    ['lastSeenAt:>=2026-11-24T10:00:00.120456', false],
    ['lastSeenAt:<2026-11-24T10:00:00.120456Z', true],
    ['lastSeenAt:>=2026-11-24T10:00:00.120456Z', false],
    ['lastSeenAt:>=2026-11-24T10:00:00.120000Z', true],
    ['lastSeenAt:<2026-11-24T11:00:00.120001+01:00', true],
    ['lastSeenAt:2026-11-24T10:00:00.120456Z', false],
    ['lastSeenAt:2026-11-24T10:00:00.120000Z', true],
    ['reported.battery.at:<2026-11-24T10:00:00.000001', true],
    ['firstSeenAt:[* TO 2027]', true],
    ['connectivity.since:<2027', true],
    ['reported.battery.at:<now', true],
    ['attributes.owner.name:Ada', true],
    ['attributes.owner.a.b:1', true],
    ['attributes.owner:*', true],
    ['attributes.owner:Ada', false],
    ['attributes.year:2021', true],
    ['attributes.year:>2020', true],
    ['attributes.constructor:*', false],
    ['reported.constructor:*', false],
    ['truck-1', true],
    ['TRUCK', false],
    ['"uck-17"', true],
    ['truck-*', true],
    ['ruck-*', false],
    ['deviceId:truck-17', true],
    ['deviceId:truck', false],
    ['counters.messages:42 counters.late:0', true],
    ['reported:*', true],
  ])('%s: %s', (query, expected) => {
    expect(holds(query)).toBe(expected)
    expect(holds(printQuery(parseQuery(query)))).toBe(expected)
  })

  it('looks at a status without attributes', () => {
    const { attributes: _, ...bare } = truck()
    expect(holds('attributes.site:*', bare)).toBe(false)
  })

  it('takes no longer for a pattern that a backtracking matcher would take for ever over', () => {
    const status = truck({ reported: { text: { value: 'a'.repeat(4096), at: AT } } })
    expect(holds(`reported.text:${'a*'.repeat(15)}b`, status)).toBe(false)
  })

  it.each([
    ['a:b', 0, 'no field'],
    ['plant:7', 0, 'goes in quotes'],
    ['reported.x', undefined, ''],
    ['reported.:5', 0, 'no field'],
    ['connectivity.foo:1', 0, 'no field'],
    ['rev:1 AND', 9, 'ends where'],
    ['rev:1 AND OR rev:2', 10, 'stands where'],
    ['rev:', 4, 'needs a value'],
    ['rev: 5', 4, 'needs a value'],
    ['(rev:1', 0, 'not closed'],
    ['rev:1)', 5, 'not opened'],
    ['()', 1, 'nothing in them'],
    ['rev:[1 TO 5', 4, 'not closed'],
    ['rev:[1 5]', 7, 'must be TO'],
    ['rev:[1 TO5]', 7, 'must be TO'],
    ['rev:[1 TO 5)', 11, 'must be ] or }'],
    ['rev:[1* TO 5]', 5, 'wildcard'],
    ['rev:>5*', 5, 'wildcard'],
    ['attributes.site:"k1', 16, 'not closed'],
    ['attributes.site:"k1"x', 20, 'without a space'],
    ['attributes.site:/k.*/', 16, 'regular expression'],
    ['attributes.site:k1~2', 18, 'not supported'],
    ['attributes.site:k1^2', 18, 'not supported'],
    ['+rev:1', 0, 'not needed'],
    ['reported.mode:+49', 14, 'goes in quotes'],
    ['rev:>+1', 5, 'goes in quotes'],
    ['attributes.site:!=k1', 16, 'goes in quotes'],
    ['attributes.tags:(red -green)', 21, 'NOT excludes a value'],
    ['attributes.tags:(-red)', 17, 'begins with - goes in quotes'],
    ['_exists_:', 9, 'needs a field'],
    ['_exists_: rev', 9, 'needs a field'],
    ['_exists_:battery', 9, '"battery" is no field; there are deviceId'],
    ['_exists_:reported.*', 9, 'no field'],
    ['reported:battery', 9, 'reported is a group'],
    ['rev:1 AND attributes:(k1 OR k2)', 22, 'is there (attributes:*), or a field in it'],
    ['counters:>5', 9, 'group'],
    ['<5', 0, 'stands where'],
    ['&&x', 0, 'stands where'],
    ['rev:(1 || ||2)', 10, 'stands where'],
    ['attributes.site:AND', 16, 'the word itself goes in quotes'],
    ['rev:1\\', 5, 'must be followed'],
    [`${'('.repeat(17)}x${')'.repeat(17)}`, 16, 'deeper than 16'],
    [`${'NOT '.repeat(17)}x`, 64, 'deeper than 16'],
    [`rev:${'('.repeat(17)}1`, 20, 'deeper than 16'],
    [`rev:(${'NOT '.repeat(17)}1)`, 65, 'deeper than 16'],
    [`rev:(${'(1) NOT 2 '.repeat(17)})`, undefined, ''],
    ['lastSeenAt:<now-1h', 12, '"now-1h" is no time'],
    ['lastSeenAt:<2026-11-3', 12, '"2026-11-3" is no time'],
    ['lastSeenAt:2026-1', 11, '"2026-1" is no time'],
    ['lastSeenAt:<1700000000000', 12, 'no time'],
    ['lastSeenAt:<"2026-11-24 09:00"', 12, 'no time'],
    ['lastSeenAt:>2026-11-24T09Z', 12, 'no time'],
    ['lastSeenAt:>2026-11-24T09:00:00.1234567890', 12, 'no time'],
    ['firstSeenAt:[2026 TO 2026-02-30T00:00:00Z]', 21, 'no time'],
    ['connectivity.since:[yesterday TO *]', 20, 'connectivity.since is compared with one like 2026-11-24T09:00:00Z'],
    ['lastSeenAt:now', 11, 'no time'],
    ['lastSeenAt:""', 11, 'no time'],
    ['lastSeenAt:>=""', 13, 'no time'],
    ['lastSeenAt:"yesterday"', 11, 'no time'],
    ['x '.repeat(65), 128, 'one condition more'],
    [`x${'*'.repeat(17)}`, 17, 'one wildcard more'],
    [`${'x'.repeat(257)}*`, 0, 'pattern of more than 256'],
    ['x'.repeat(2049), 2048, 'at most 2048'],
  ])('%s is refused at %s', (query, position, message) => {
    if (position === undefined) return expect(() => parseQuery(query)).not.toThrow()
    const error = refusal(query)
    expect(error.message).toContain(message)
    expect(error.position).toBe(position)
  })
})

function refusal(query: string): QuerySyntaxError {
  try {
    parseQuery(query)
  } catch (error) {
    if (error instanceof QuerySyntaxError) return error
    throw error
  }
  throw new Error(`${query} was read`)
}
