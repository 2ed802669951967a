import { beforeEach, expect, it } from 'vitest'
import { systemClock } from '../../../processor/runtime/pause.ts'
import { Changelog } from '../changes/changelog.ts'
import { type Stage, stage } from '../stage.ts'

let on: Stage
beforeEach(async () => {
  on = await stage({ changes: { feed: new Changelog(1).feed(), clock: systemClock, random: () => 0 } })
  on.fleet.put('a', { t: { value: 'x'.repeat(5000), at: '2026-11-24T10:00:00.000Z' } })
})

const varyOf = async (url: string, headers: Record<string, string>) => {
  const answer = await on.api.inject({ url, headers })
  return [answer.statusCode, answer.headers.vary]
}

it.each(['/v1/devices', '/v1/devices/a/attributes', '/docs/static/swagger-ui.css'])(
  'tells caches that an answer goes by Accept-Encoding, whatever was accepted: %s',
  async (url) => {
    for (const accepted of [{}, { 'accept-encoding': 'identity' }, { 'accept-encoding': 'gzip' }]) {
      expect(await varyOf(url, accepted)).toEqual([200, 'accept-encoding'])
    }
  },
)

it.each(['/v1/devices/a/attributes', '/docs/static/swagger-ui.css'])(
  'tells it with 304 as with 200: %s',
  async (url) => {
    expect(await varyOf(url, { 'accept-encoding': 'gzip', 'if-none-match': '*' })).toEqual([304, 'accept-encoding'])
  },
)

it.each(['/v1/devices/a', '/v1/changes', '/v1/devices/a/changes'])(
  'tells nothing of what is never compressed: %s',
  async (url) => {
    const { statusCode, headers } = await on.api.inject({ method: 'HEAD', url, headers: { 'accept-encoding': 'gzip' } })
    expect([statusCode, headers.vary]).toEqual([200, undefined])
  },
)
