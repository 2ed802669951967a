import { rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { runToken } from '../../../api/auth/token-command.ts'
import { partitionOf } from '../../../processor/contract/partition.ts'
import { readEnvironment } from '../../../processor/runtime/environment.ts'
import { ask, documentOf } from '../conformance.ts'
import { CLAIMS, folder, get, guarded, pass, refused, SECRET, START, signed } from './guarded.ts'

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
    expect(document.paths['/v1/dead-letters'].get.security).toEqual([{ bearer: ['ops:read', 'devices:read'] }])
    expect(document.paths['/livez'].get.security).toEqual([])
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
      ['devices:read', '/v1/dead-letters', 'ops:read'],
      ['ops:read', '/v1/dead-letters', 'devices:read'],
      ['ops:read', '/v1/dead-letters?limit=0', 'devices:read'],
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
    pass(34_000)
    expect((await get(on, short)).status).toBe(404)
    pass(1_000)
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
    pass(126_000)
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
    pass(1_000)
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
