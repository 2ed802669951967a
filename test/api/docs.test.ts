import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { ask, documentOf } from './conformance.ts'
import { type Stage, stage } from './stage.ts'

let on: Stage
beforeEach(async () => {
  on = await stage()
})
afterEach(() => on.api.close())

const fileFor = async (headers: Record<string, string>) => {
  const answer = await ask(on.api, { url: '/docs/static/swagger-ui.css', headers })
  return [answer.status, answer.body.type, answer.headers['content-range']]
}

describe('/docs', () => {
  it('shows the document by what this process alone serves', async () => {
    const page = await on.api.inject('/docs')
    expect(page.statusCode).toBe(200)
    expect(page.headers['content-security-policy']).toContain("default-src 'none'; script-src 'self'")
    const sources = Array.from(page.body.matchAll(/(?:src|href)="([^"]+)"/g), ([, source]) => source as string)
    expect(sources.length).toBeGreaterThan(4)
    for (const source of sources) {
      expect(source).toMatch(/^\/docs\/static\//)
      expect((await on.api.inject(source)).statusCode, source).toBe(200)
    }
    const shown = (await on.api.inject('/docs/json')).json()
    expect(shown).toEqual(await documentOf(on.api))
  })

  it('has no other files', async () => {
    const outside = ['%2e%2e/x', '..%2fpackage.json', '/etc/passwd', '%00', 'a%5c..%5cb'].map(
      (to) => `/docs/static/${to}`,
    )
    for (const url of ['/docs/static/nope.js', '/docs/x', ...outside]) {
      expect((await ask(on.api, url)).status, url).toBe(404)
    }
  })

  it('says what of a file cannot be had', async () => {
    const range = [416, 'urn:tidemark:problem:range-not-satisfiable', expect.stringMatching(/^bytes \*\/\d+$/)]
    expect(await fileFor({ range: 'bytes=99999999-' })).toEqual(range)
    const failed = [412, 'urn:tidemark:problem:precondition-failed', undefined]
    expect(await fileFor({ 'if-match': '"x"' })).toEqual(failed)
    expect(await fileFor({ 'if-unmodified-since': 'Thu, 01 Jan 1970 00:00:00 GMT' })).toEqual(failed)
  })
})
