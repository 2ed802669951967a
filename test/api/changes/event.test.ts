import { expect, it } from 'vitest'
import { eventText } from '../../../api/changes/event.ts'

it('an event has its data in one line, as another program may have written the JSON of a device', () => {
  const json = JSON.stringify({ deviceId: 'a', note: 'two\nlines' }, undefined, 2).replaceAll('\n', '\r\n')
  const [name, data = '', ...rest] = eventText('change', json, '7').split('\n')
  expect([name, rest]).toEqual(['event: change', ['id: 7', '', '']])
  expect(JSON.parse(data.slice('data: '.length))).toEqual({ deviceId: 'a', note: 'two\nlines' })
})
