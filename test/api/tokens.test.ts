import { createHmac, generateKeyPairSync } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, rm, stat, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { exportJWK, generateKeyPair, type JWK, SignJWT } from 'jose'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import type { TokenSettings } from '../../api/access.ts'
import type { AppOptions } from '../../api/app.ts'
import { runToken } from '../../api/token-command.ts'
import { Tokens } from '../../api/tokens.ts'
import { readEnvironment } from '../../processor/contract/environment.ts'
import { partitionOf } from '../../processor/contract/partition.ts'
import { type Answered, ask, documentOf } from './conformance.ts'
import { type Stage, silent, stage } from './stage.ts'

const SECRET = 'not-so-secret-but-32-bytes-long!'
const START = Date.parse('2026-11-24T10:00:00Z')
const SETTINGS: TokenSettings = {
  keys: { secret: SECRET },
  algorithms: ['HS256'],
  issuer: 'tidemark',
  audience: 'tidemark',
}
const CLAIMS = {
  sub: 'ops',
  iss: 'tidemark',
  aud: 'tidemark',
  exp: START / 1000 + 3600,
  scope: 'devices:read devices:write ops:read',
}

let now: number
beforeEach(() => {
  now = START
})

const folder = { path: '' }
beforeAll(async () => {
  folder.path = await mkdtemp(join(tmpdir(), 'tidemark-tokens-'))
})
afterAll(() => rm(folder.path, { recursive: true, force: true }))

const stages: Stage[] = []
afterEach(async () => {
  for (const each of stages.splice(0)) await each.api.close()
})

async function guarded(settings: Partial<TokenSettings> = {}, options: Partial<AppOptions> = {}): Promise<Stage> {
  const tokens = await Tokens.open({ ...SETTINGS, ...settings, logger: silent, now: () => now })
  const on = await stage({ tokens, ...options })
  stages.push(on)
  return on
}

/** HMAC by hand, so that the token can be anything. */
function signed(claims: object, header: object = { alg: 'HS256' }, secret: string | Buffer = SECRET): string {
  const head = [header, claims].map((part) => Buffer.from(JSON.stringify(part)).toString('base64url')).join('.')
  return `${head}.${createHmac('sha256', secret).update(head).digest('base64url')}`
}

function get(on: Stage, token: string | undefined, url = '/v1/devices/a'): Promise<Answered> {
  return ask(on.api, { url, headers: token === undefined ? {} : { authorization: `Bearer ${token}` } })
}

async function refused(on: Stage, token: string, reason: RegExp): Promise<void> {
  const { status, headers, body } = await get(on, token)
  expect({ status, type: body.type }).toEqual({ status: 401, type: 'urn:tidemark:problem:unauthorized' })
  expect(body.detail).toMatch(reason)
  expect(headers['www-authenticate']).toMatch(/^Bearer realm="tidemark", error="invalid_token", error_description="/)
}

async function keyPair(alg: string, kid?: string) {
  const { privateKey, publicKey } = await generateKeyPair(alg, { extractable: true })
  const jwk: JWK = { ...(await exportJWK(publicKey)), alg, ...(kid === undefined ? {} : { kid }) }
  const sign = (exp = CLAIMS.exp) =>
    new SignJWT({ ...CLAIMS, exp }).setProtectedHeader({ alg, ...(kid === undefined ? {} : { kid }) }).sign(privateKey)
  return { jwk, sign }
}
const published = (file: string, ...keys: JWK[]) => writeFile(join(folder.path, file), JSON.stringify({ keys }))
const withFile = (file: string) =>
  guarded({ keys: { jwks: join(folder.path, file) }, algorithms: ['RS256', 'ES256', 'EdDSA'] })

const env = () => readEnvironment({ AUTH_SECRET: SECRET })
const issue = (...flags: string[]) => runToken(flags, env(), START)

describe('a token', () => {
  it('lets its bearer in, and is asked for by every route but those that say nothing of devices', async () => {
    const on = await guarded()
    on.fleet.put('a')
    const open = ['/', '/livez', '/readyz', '/openapi.json']
    const { paths } = await documentOf(on.api)
    for (const [path, operations] of Object.entries(paths)) {
      for (const method of Object.keys(operations)) {
        const url = path.replace('{deviceId}', 'a')
        const { statusCode, headers } = await on.api.inject({ method: method.toUpperCase() as 'GET', url })
        if (open.includes(path)) expect(statusCode, url).toBe(200)
        else expect([statusCode, headers['www-authenticate']], url).toEqual([401, 'Bearer realm="tidemark"'])
      }
    }
    for (const url of ['/v1/devices/a', '/v1/devices', '/v1/partitions', '/metrics']) {
      const { status, headers } = await get(on, signed(CLAIMS), url)
      expect([status, headers['cache-control']], url).toEqual([200, 'private, no-cache'])
    }
    expect((await on.api.inject({ method: 'HEAD', url: '/v1/devices/a' })).statusCode).toBe(401)
    const authorization = `bearer ${signed(CLAIMS)}`
    const head = await on.api.inject({ method: 'HEAD', url: '/v1/devices/a', headers: { authorization } })
    expect(head.statusCode).toBe(200)
  })

  it('is asked for before the body is read', async () => {
    const { status } = await ask((await guarded()).api, { method: 'POST', url: '/v1/devices/batch-get', payload: '{' })
    expect(status).toBe(401)
  })

  it('is said in the document to be needed, by scope', async () => {
    const document = (await (await guarded()).api.inject('/openapi.json')).json()
    expect(document.paths['/v1/devices'].get.security).toEqual([{ bearer: ['devices:read'] }])
    expect(document.paths['/metrics'].get.security).toEqual([{ bearer: ['ops:read'] }])
    expect(document.paths['/livez'].get).not.toHaveProperty('security')
    expect(document.components.securitySchemes.bearer).toMatchObject({ type: 'http', scheme: 'bearer' })
  })

  it.each([
    ['that has expired', { ...CLAIMS, exp: START / 1000 - 6 }, /expired/],
    ['that never expires', { ...CLAIMS, exp: undefined }, /no claim exp/],
    ['that is not good yet', { ...CLAIMS, nbf: START / 1000 + 60 }, /nbf/],
    ['of another issuer', { ...CLAIMS, iss: 'other' }, /iss/],
    ['without an issuer', { ...CLAIMS, iss: undefined }, /iss/],
    ['for another audience', { ...CLAIMS, aud: ['a', 'b'] }, /aud/],
    ['without an audience', { ...CLAIMS, aud: undefined }, /aud/],
    ['whose scope is a list', { ...CLAIMS, scope: ['devices:read'] }, /scope/],
    ['whose subject is a number', { ...CLAIMS, sub: 7 }, /sub|JWT/],
    ['whose expiry is a text', { ...CLAIMS, exp: 'never' }, /exp/],
    ['whose devices are a text', { ...CLAIMS, devices: 'a' }, /devices/],
    ['whose devices are not beginnings', { ...CLAIMS, devices: ['a', ''] }, /devices/],
    ['whose devices are many', { ...CLAIMS, devices: Array.from({ length: 65 }, (_, i) => `d${i}`) }, /devices/],
  ])('%s is refused', async (_, claims, reason) => {
    await refused(await guarded(), signed(claims), reason)
  })

  it('is good a few seconds after its expiry, as clocks differ, and for one of its audiences', async () => {
    const on = await guarded()
    expect((await get(on, signed({ ...CLAIMS, exp: START / 1000 - 4, aud: ['x', 'tidemark'] }))).status).toBe(404)
  })

  it('is refused when it is forged', async () => {
    const on = await guarded()
    const [head, body, signature] = signed(CLAIMS).split('.') as [string, string, string]
    const none = Buffer.from('{"alg":"none"}').toString('base64url')
    await refused(on, signed(CLAIMS, { alg: 'HS256' }, 'x'.repeat(32)), /signature/)
    await refused(
      on,
      `${head}.${Buffer.from(JSON.stringify({ ...CLAIMS, sub: 'root' })).toString('base64url')}.${signature}`,
      /signature/,
    )
    await refused(on, `${none}.${body}.`, /algorithm|JWT/)
    await refused(on, `${none}.${body}.${signature}`, /algorithm/)
    await refused(on, signed(CLAIMS, { alg: 'HS512' }), /algorithm/)
    await refused(on, signed(CLAIMS, { alg: 'HS256', crit: ['x'], x: 1 }), /JWT/)
    for (const text of ['a', 'a.b.c', 'a.b.c.d.e', `${head}.${body}`, 'x'.repeat(9_000)])
      await refused(on, text, /JWT|8192/)
  })

  it('is not guessed to be what does not use Bearer as it should be', async () => {
    const { api } = await guarded()
    for (const authorization of ['Basic b3BzOng=', '', 'Digest x', 'Bearerish a']) {
      const { status, headers } = await ask(api, { url: '/v1/devices/a', headers: { authorization } })
      expect([status, headers['www-authenticate']]).toEqual([401, 'Bearer realm="tidemark"'])
    }
    for (const authorization of ['Bearer', 'Bearer ', 'Bearer a b', 'Bearer a,b', 'Bearer "a"']) {
      const { status, headers, body } = await ask(api, { url: '/v1/devices/a', headers: { authorization } })
      expect([status, body.errors[0]?.field]).toEqual([400, 'authorization'])
      expect(headers['www-authenticate']).toMatch('error="invalid_request"')
    }
  })

  it('without the scope of the route is answered 403 that names it', async () => {
    const on = await guarded()
    for (const [scope, url, needed] of [
      ['ops:read', '/v1/devices/a', 'devices:read'],
      ['devices:read', '/metrics', 'ops:read'],
      ['devices:read', '/v1/partitions', 'ops:read'],
      ['devices:readx  other', '/v1/devices', 'devices:read'],
      [undefined, '/v1/devices', 'devices:read'],
    ] as const) {
      const { status, headers, body } = await get(on, signed({ ...CLAIMS, scope }), url)
      expect([status, body.type]).toEqual([403, 'urn:tidemark:problem:forbidden'])
      expect(headers['www-authenticate']).toMatch(`error="insufficient_scope"`)
      expect(headers['www-authenticate']).toMatch(new RegExp(`, scope="${needed}"$`))
    }
  })

  it('is remembered until it expires, and no longer', async () => {
    const on = await guarded()
    const short = signed({ ...CLAIMS, exp: START / 1000 + 30 })
    expect((await get(on, short)).status).toBe(404)
    now += 34_000
    expect((await get(on, short)).status).toBe(404)
    now += 1_000
    await refused(on, short, /expired/)
    // The same claims with another signature are another token.
    await refused(on, signed({ ...CLAIMS, exp: START / 1000 + 30 }, { alg: 'HS256' }, 'y'.repeat(32)), /signature/)
  })
})

describe('a token for some devices', () => {
  const ids = ['bus-1', 'car', 'car-1', 'car-2', 'carx', 'truck-1', 'truck-2', 'van-1']

  it('shows these in every kind of answer, and no others', async () => {
    const on = await guarded()
    for (const id of ids) on.fleet.put(id)
    const token = signed({ ...CLAIMS, devices: ['truck-', 'car-', 'nothing', 'truck-1'] })
    expect((await get(on, token, '/v1/devices/car-1')).status).toBe(200)
    for (const id of ['car', 'van-1', 'unknown']) {
      const { status, headers, body } = await get(on, token, `/v1/devices/${id}`)
      expect([status, body.type]).toEqual([403, 'urn:tidemark:problem:forbidden'])
      expect(body.detail).toContain(id)
      expect(headers['www-authenticate']).toContain('insufficient_scope')
    }
    const seen: string[] = []
    for (let url: string | undefined = '/v1/devices?limit=1'; url !== undefined; ) {
      const { body, headers } = await get(on, token, url)
      seen.push(...body.items.map((item) => item.deviceId))
      url = headers.link?.match(/^<(.*)>/)?.[1]
    }
    expect(seen).toEqual(['car-1', 'car-2', 'truck-1', 'truck-2'])
    expect((await get(on, token, '/v1/devices')).body.items).toHaveLength(4)
    const { body } = await ask(on.api, {
      method: 'POST',
      url: '/v1/devices/batch-get',
      headers: { authorization: `Bearer ${token}` },
      payload: { deviceIds: ['van-1', 'car-1', 'truck-9', 'car'] },
    })
    expect(body.results).toMatchObject([
      { deviceId: 'van-1', error: { status: 403, type: 'urn:tidemark:problem:forbidden' } },
      { deviceId: 'car-1', found: true },
      { deviceId: 'truck-9', found: false },
      { deviceId: 'car', error: { status: 403 } },
    ])
  })

  it('writes to these only, with the scope for it, and shows nothing to who may only write', async () => {
    const position = { partition: partitionOf('truck-1', 4), offset: 6 }
    const written: string[] = []
    const write = async (deviceId: string) => {
      written.push(deviceId)
      return position
    }
    const on = await guarded({}, { writer: { write } })
    for (const id of ids) on.fleet.put(id)
    on.fleet.assign(position.partition, 'a')
    on.fleet.member('a').outcomes.set(6, 'applied')
    const devices = ['truck-']
    const send = async (scope: string, method: 'PUT' | 'PATCH' | 'DELETE', id: string) => {
      const url = method === 'DELETE' ? `/v1/devices/${id}` : `/v1/devices/${id}/attributes`
      const headers = { authorization: `Bearer ${signed({ ...CLAIMS, scope, devices })}`, prefer: 'wait=1' }
      return ask(on.api, { method, url, headers, ...(method === 'DELETE' ? {} : { payload: {} }) })
    }
    for (const method of ['PUT', 'PATCH', 'DELETE'] as const) {
      expect((await send('devices:write', method, 'van-1')).status).toBe(403)
      expect((await send('devices:read', method, 'truck-1')).status).toBe(403)
    }
    const token = signed({ ...CLAIMS, devices })
    expect((await get(on, token, '/v1/devices/van-1/attributes')).status).toBe(403)
    expect((await get(on, token, '/v1/devices/truck-1/attributes')).body).toEqual({})
    expect(written).toEqual([])
    expect((await send('devices:write', 'PUT', 'truck-1')).status).toBe(204)
    expect((await send('devices:write devices:read', 'PATCH', 'truck-1')).body.deviceId).toBe('truck-1')
    expect(written).toEqual(['truck-1', 'truck-1'])
  })

  it('shows none when it names none', async () => {
    const on = await guarded()
    for (const id of ids) on.fleet.put(id)
    const token = signed({ ...CLAIMS, devices: [] })
    expect((await get(on, token, '/v1/devices')).body).toEqual({ items: [] })
    expect((await get(on, token, '/v1/devices/car')).status).toBe(403)
  })
})

describe('public keys', () => {
  it.each(['RS256', 'ES256', 'EdDSA'])('verify %s', async (alg) => {
    const { jwk, sign } = await keyPair(alg)
    await published(`${alg}.json`, jwk)
    expect((await get(await withFile(`${alg}.json`), await sign())).status).toBe(404)
  })

  it('are never taken for the secret of an HMAC', async () => {
    const { publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
    await published('confused.json', { ...(publicKey.export({ format: 'jwk' }) as JWK), kid: 'k' })
    const on = await withFile('confused.json')
    for (const secret of [
      publicKey.export({ type: 'spki', format: 'pem' }),
      publicKey.export({ type: 'spki', format: 'der' }),
    ]) {
      await refused(on, signed(CLAIMS, { alg: 'HS256', kid: 'k' }, secret), /algorithm/)
      await refused(on, signed(CLAIMS, { alg: 'RS256', kid: 'k' }, secret), /signature/)
    }
  })

  it('rotate by kid while the process runs', async () => {
    const [first, second, third] = await Promise.all(['one', 'two', 'three'].map((kid) => keyPair('ES256', kid)))
    if (first === undefined || second === undefined || third === undefined) throw new Error('no keys')
    await published('rotating.json', first.jwk)
    const on = await withFile('rotating.json')
    expect((await get(on, await first.sign())).status).toBe(404)
    await published('rotating.json', first.jwk, second.jwk)
    // Not a load for each token that names an unknown key.
    await refused(on, await second.sign(), /no key/)
    now += 1_000
    expect((await get(on, await second.sign())).status).toBe(404)
    await published('rotating.json', second.jwk)
    now += 1_000
    await refused(on, await third.sign(), /no key/)
    await refused(on, await first.sign(), /no key/)
    expect((await get(on, await second.sign())).status).toBe(404)
  })

  it('that are withdrawn end the tokens that were believed', async () => {
    const [first, second] = await Promise.all(['one', 'two'].map((kid) => keyPair('ES256', kid)))
    if (first === undefined || second === undefined) throw new Error('no keys')
    await published('withdrawn.json', first.jwk, second.jwk)
    const on = await withFile('withdrawn.json')
    const token = await first.sign()
    expect((await get(on, token)).status).toBe(404)
    await published('withdrawn.json', second.jwk)
    now += 5 * 60_000 + 1
    await expect.poll(async () => ((now += 60_001), (await get(on, token)).status)).toBe(401)
  })

  it('are asked for by kid where there are more that could fit', async () => {
    const [a, b] = await Promise.all([keyPair('ES256'), keyPair('ES256')])
    await published('alike.json', a.jwk, b.jwk)
    await refused(await withFile('alike.json'), await a.sign(), /kid/)
  })

  it.each([
    ['is not there', undefined, /ENOENT/],
    ['is not JSON', '{', /JSON/],
    ['is no set', '{"kty":"RSA"}', /"keys"/],
    ['has a secret', JSON.stringify({ keys: [{ kty: 'oct', k: 'AAAA' }] }), /secret/],
    [
      'has nothing usable',
      JSON.stringify({ keys: [{ kty: 'X' }, { kty: 'RSA', n: 'AQAB', e: 'AQAB' }, null] }),
      /no key/,
    ],
  ])('in a file that %s are refused at the start', async (_, text, reason) => {
    const file = join(folder.path, 'broken.json')
    if (text !== undefined) await writeFile(file, text)
    const opened = Tokens.open({ ...SETTINGS, keys: { jwks: file }, logger: silent, now: () => now })
    await expect(opened).rejects.toMatchObject({
      code: 'INVALID_CONFIGURATION',
      message: expect.stringMatching(reason),
    })
  })

  it('come from a URL, are awaited with 503 while it fails, and used on when it fails later', async () => {
    const { jwk, sign } = await keyPair('EdDSA', 'one')
    let status = 500
    const issuer = createServer((_request, response) => {
      response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify({ keys: [jwk] }))
    })
    await once(issuer.listen(0, '127.0.0.1'), 'listening')
    const jwks = `http://127.0.0.1:${(issuer.address() as AddressInfo).port}/jwks`
    const tokens = await Tokens.open({
      ...SETTINGS,
      keys: { jwks },
      algorithms: ['EdDSA'],
      logger: silent,
      now: () => now,
    })
    const on = await stage({ tokens })
    stages.push(on)
    const token = await sign()
    expect(tokens.problems[0]).toContain('answered 500')
    const waiting = await get(on, token)
    expect(waiting).toMatchObject({ status: 503, headers: { 'retry-after': '30' } })
    expect(waiting.body.type).toBe('urn:tidemark:problem:keys-unavailable')
    expect(waiting.body.detail).not.toContain(jwks)
    status = 200
    now += 30_000
    expect((await get(on, token)).status).toBe(404)
    expect(tokens.problems).toEqual([])
    status = 500
    now += 50 * 60_000
    expect((await get(on, await sign(now / 1000 + 600))).status).toBe(404)
    now += 11 * 60_000
    expect((await get(on, await sign(now / 1000 + 600))).status).toBe(503)
    issuer.close()
  })
})

describe('node main.ts token', () => {
  it('issues what the API accepts, for these scopes, these devices, this time', async () => {
    const on = await guarded()
    on.fleet.put('car-1')
    const token = await issue(
      '--subject',
      'ops',
      '--scope',
      'devices:read',
      '--devices',
      'car-,bus-',
      '--expires',
      '2m',
    )
    expect(token).toMatch(/^[\w-]+\.[\w-]+\.[\w-]+$/)
    expect((await get(on, token, '/v1/devices/car-1')).status).toBe(200)
    expect((await get(on, token, '/v1/devices/van-1')).status).toBe(403)
    expect((await get(on, token, '/metrics')).status).toBe(403)
    now += 126_000
    await refused(on, token, /expired/)
  })

  it('makes key pairs, adds to a set, and signs with them', async () => {
    const keys = join(folder.path, 'new', 'keys')
    const made = await runToken(['--new-key', keys], env(), START)
    expect((await stat(keys)).mode & 0o777).toBe(0o700)
    const file = join(keys, 'private.jwk')
    expect(made).toContain('AUTH_JWKS=')
    const flags = ['--subject', 'ops', '--scope', 'devices:read', '--key', file]
    const on = await guarded({ keys: { jwks: join(keys, 'jwks.json') }, algorithms: ['ES256', 'EdDSA'] })
    const first = await runToken(flags, env(), START)
    expect((await get(on, first)).status).toBe(404)
    await expect(runToken(['--new-key', keys], env(), START)).rejects.toThrow('EEXIST')
    await rm(file)
    await runToken(['--new-key', keys, '--algorithm', 'EdDSA'], env(), START)
    now += 1_000
    expect((await get(on, await runToken(flags, env(), START))).status).toBe(404)
    expect((await get(on, first)).status).toBe(404)
  })

  it.each([
    [[], 'usage'],
    [['--subject', 'a', '--scope', 'devices'], '--scope'],
    [['--subject', 'a', '--scope', ''], '--scope'],
    [['--subject', 'a', '--scope', 'ops:read', '--devices', 'a b'], '--devices'],
    [['--subject', 'a', '--scope', 'ops:read', '--devices', 'a,'], '--devices'],
    [['--subject', 'a', '--scope', 'ops:read', '--expires', '0s'], '--expires'],
    [['--subject', 'a', '--scope', 'ops:read', '--expires', 'soon'], '--expires'],
    [['--subject', 'a', '--scope', 'ops:read', '--key', '/nowhere'], '/nowhere'],
    [['--new-key', '/dev/null/keys'], '/dev/null/keys'],
    [['--new-key', '.', '--algorithm', 'none'], 'none'],
    [['--what'], '--what'],
  ])('refuses %j', async (flags, named) => {
    await expect(runToken(flags, env(), START)).rejects.toMatchObject({
      code: 'INVALID_CONFIGURATION',
      message: expect.stringContaining(named),
    })
  })

  it('says that it needs a key', async () => {
    const issued = runToken(['--subject', 'a', '--scope', 'ops:read'], readEnvironment({}), START)
    await expect(issued).rejects.toThrow('AUTH_SECRET')
  })
})
