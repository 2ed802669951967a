import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type Field, parseField, valueOf } from '../../../../processor/contract/field.ts'
import type { Json } from '../../../../processor/contract/json.ts'
import type { Status } from '../../../../processor/contract/status.ts'
import { StoredFields } from '../../../../processor/search/language/stored-fields.ts'
import { encodeStatus } from '../../../status-model.ts'
import { anyStatus } from '../../contract/statuses.ts'
import { field, statusWith } from './queries.ts'

function picksWhatParsingDoes(fields: readonly Field[], of: Status, text = encodeStatus(of)): void {
  const stored = new StoredFields(fields)
  const parsed = JSON.parse(text.toString()) as Status
  const expected = fields.map((each) => valueOf(each, parsed))
  // Twice: nothing stays from one status to the next.
  for (let i = 0; i < 2; i++) {
    expect(stored.read(text)).toEqual(expected)
    expect(stored.read(Buffer.from('{"deviceId":"x","reported":{}}'))).toEqual(
      fields.map((each) => (each.name === 'deviceId' ? 'x' : each.name === 'reported' ? {} : undefined)),
    )
  }
}

const fields = (of: Status): Field[] =>
  [
    ...Object.keys(of.reported).flatMap((name) => [`reported.${name}`, `reported.${name}.at`]),
    ...Object.keys(of.attributes ?? {}).map((name) => `attributes.${name}`),
    'deviceId',
    'lastSeenAt',
    'connectivity.state',
    'counters.late',
    'reported.absent',
    'attributes.absent',
    'attributes',
    'connectivity',
    'reported',
  ].flatMap((name) => parseField(name) ?? [])

describe('fields picked out of a stored status', () => {
  it('are what parsing it gives', () => {
    fc.assert(
      fc.property(anyStatus, fc.infiniteStream(fc.nat(30)), (of, picks) => {
        const all = fields(of)
        picksWhatParsingDoes(all, of)
        for (const each of all) picksWhatParsingDoes([each], of)
        const some = picks.take(3).map((pick) => all[pick % all.length] as Field)
        picksWhatParsingDoes([...some], of)
      }),
    )
  })

  it('are found with queries, dotted paths and times of metrics too', () => {
    fc.assert(
      fc.property(fc.array(field, { maxLength: 4 }), statusWith(fc.constant('a')), (some, of) =>
        picksWhatParsingDoes(some, of),
      ),
    )
  })

  it('are found in JSON of another writer', () => {
    fc.assert(
      fc.property(fc.array(field, { maxLength: 4 }), statusWith(fc.constant('a')), (some, of) => {
        picksWhatParsingDoes(some, of, Buffer.from(JSON.stringify(of, undefined, 1)))
        picksWhatParsingDoes(some, of, Buffer.from(JSON.stringify(of).replaceAll('"at"', '"\\u0061t"')))
      }),
    )
  })

  it('are null where another writer nested them too deep', () => {
    const names = ['attributes.site', 'attributes', 'reported.a', 'reported', 'attributes.x.y']
    const wanted = names.map((name) => parseField(name) as Field)
    fc.assert(
      fc.property(
        statusWith(fc.constant('a')),
        fc.integer({ min: 15, max: 20 }),
        fc.subarray(wanted),
        (of, depth, some) => {
          const deep = JSON.parse('['.repeat(depth) + ']'.repeat(depth)) as Json
          const metric = { value: deep, at: of.lastSeenAt }
          const nested = {
            ...of,
            reported: { ...of.reported, a: metric },
            attributes: { ...of.attributes, site: deep },
          }
          picksWhatParsingDoes(some, nested)
          const [site, attributes] = new StoredFields(wanted).read(encodeStatus(nested))
          expect([site === null, attributes === null]).toEqual([depth > 18, depth > 17])
        },
      ),
    )
  })

  it('are none of what is no JSON, or no object', () => {
    const broken = ['', '{', '{"deviceId":"a', '{"deviceId"}', '[]x', '{"reported":{"a":{"value":']
    const others = ['null', '5', '"a"', '[1]', '{}', '{"reported":null}', '{"reported":[]}', '{"reported":{"a":null}}']
    const wanted = ['reported.a', 'reported.b.at', 'attributes.x.y', 'attributes', 'connectivity.state', 'rev']
    for (const text of [...broken, ...others]) {
      for (const name of wanted) {
        const stored = new StoredFields([parseField(name) as Field])
        expect(stored.read(Buffer.from(text)), `${name} of ${text}`).toEqual([undefined])
      }
    }
  })
})
