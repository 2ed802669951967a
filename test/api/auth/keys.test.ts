import { generateKeyPairSync } from 'node:crypto'
import { once } from 'node:events'
import { writeFile } from 'node:fs/promises'
import { createServer, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { exportJWK, generateKeyPair, type JWK, SignJWT } from 'jose'
import { describe, expect, it, onTestFinished } from 'vitest'
import type { Tokens } from '../../../api/auth/tokens.ts'
import { CLAIMS, clock, folder, get, guarded, guardedBy, pass, refused, signed, tokensOf } from './guarded.ts'

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

function forged(n: number): string {
  const [head, claims] = signed({ ...CLAIMS, n }, { alg: 'EdDSA', kid: 'x' }).split('.')
  return `Bearer ${head}.${claims}.${'A'.repeat(86)}`
}

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
    pass(1_000)
    expect((await get(on, await second.sign())).status).toBe(404)
    await published('rotating.json', second.jwk)
    pass(1_000)
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
    pass(5 * 60_000 + 1)
    await expect.poll(async () => (pass(60_001), (await get(on, token)).status)).toBe(401)
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
      JSON.stringify({ keys: [{ kty: 'X' }, { kty: 'RSA', n: 'AQAB', e: 'AQAB' }, { kty: 'RSA', n: 5 }, null] }),
      /no key/,
    ],
  ])('in a file that %s are refused at the start', async (_, text, reason) => {
    const file = join(folder.path, 'broken.json')
    if (text !== undefined) await writeFile(file, text)
    const opened = tokensOf({ keys: { jwks: file } })
    await expect(opened).rejects.toMatchObject({
      code: 'INVALID_CONFIGURATION',
      message: expect.stringMatching(reason),
    })
  })

  it('that are not understood are left out', async () => {
    const { jwk, sign } = await keyPair('ES256', 'one')
    await published('odd.json', { kty: 'RSA', kid: 'two', n: 5, e: 'AQAB' } as unknown as JWK, jwk)
    expect((await get(await withFile('odd.json'), await sign())).status).toBe(404)
  })

  it('rotate, and end what was believed, also when somebody sets the clock back', async () => {
    const [first, second] = await Promise.all(['one', 'two'].map((kid) => keyPair('ES256', kid)))
    if (first === undefined || second === undefined) throw new Error('no keys')
    await published('clock.json', first.jwk)
    const on = await withFile('clock.json')
    const token = await first.sign()
    expect((await get(on, token)).status).toBe(404)
    clock.now -= 3600_000
    await published('clock.json', second.jwk)
    pass(1_000)
    expect((await get(on, await second.sign())).status).toBe(404)
    pass(60_000)
    await refused(on, token, /no key/)
  })
})

describe('public keys of a URL', () => {
  it('are awaited with 503 while it fails, and used on when it fails later', async () => {
    const { jwk, sign } = await keyPair('EdDSA', 'one')
    const issuer = await Issuer.open(500, jwk)
    const tokens = await issuer.tokens()
    const on = await guardedBy(tokens)
    const token = await sign()
    expect(tokens.check()).toHaveLength(1)
    const waiting = await get(on, token)
    expect(waiting).toMatchObject({ status: 503, headers: { 'retry-after': '30' } })
    expect(waiting.body.type).toBe('urn:tidemark:problem:keys-unavailable')
    expect(waiting.body.detail).not.toContain(issuer.url)
    issuer.status = 200
    pass(30_000)
    expect((await get(on, token)).status).toBe(404)
    expect(tokens.check()).toEqual([])
    issuer.status = 500
    pass(50 * 60_000)
    expect((await get(on, await sign(clock.now / 1000 + 600))).status).toBe(404)
    pass(11 * 60_000)
    expect((await get(on, await sign(clock.now / 1000 + 600))).status).toBe(503)
  })

  it('are loaded anew by who asks whether the process is ready, though no token comes', async () => {
    const { jwk, sign } = await keyPair('EdDSA', 'one')
    const issuer = await Issuer.open(200, jwk)
    const tokens = await issuer.tokens()
    pass(61 * 60_000)
    expect(tokens.check()).toEqual([])
    await expect.poll(() => issuer.asked).toBe(2)
    // Waits for what was loaded: time that passes before would be none of its age.
    await expect(tokens.callerOf(forged(0))).rejects.toMatchObject({ kind: 'unauthorized' })
    issuer.status = 500
    pass(61 * 60_000)
    await expect.poll(() => tokens.check()).toEqual([expect.stringMatching(/^the keys/)])
    expect(tokens.check()[0]).not.toMatch(/127\.0\.0\.1|hush/)
    issuer.status = 200
    pass(30_000)
    await expect.poll(() => tokens.check()).toEqual([])
    expect((await get(await guardedBy(tokens), await sign(clock.now / 1000 + 60))).status).toBe(404)
  })

  it('leave the process ready for as long as the last set may be used', async () => {
    const [known, unknown] = await Promise.all(['one', 'two'].map((kid) => keyPair('EdDSA', kid)))
    if (known === undefined || unknown === undefined) throw new Error('no keys')
    const issuer = await Issuer.open(200, known.jwk)
    const tokens = await issuer.tokens()
    issuer.status = 500
    pass(6 * 60_000)
    // Has waited for the load that failed.
    expect((await get(await guardedBy(tokens), await unknown.sign())).status).toBe(503)
    expect(tokens.check()).toEqual([])
    pass(55 * 60_000)
    expect(tokens.check()).toEqual([expect.stringMatching(/^the keys/)])
  })

  it('are not said to lack a key while they cannot be loaded', async () => {
    const [first, second] = await Promise.all(['one', 'two'].map((kid) => keyPair('EdDSA', kid)))
    if (first === undefined || second === undefined) throw new Error('no keys')
    const issuer = await Issuer.open(200, first.jwk)
    const on = await guardedBy(await issuer.tokens())
    issuer.status = 500
    issuer.keys = [first.jwk, second.jwk]
    pass(30_000)
    // The second of these within the time between two loads.
    for (const _ of [1, 2]) {
      const { status, headers, body } = await get(on, await second.sign())
      expect([status, headers['retry-after'], body.type]).toEqual([503, '30', 'urn:tidemark:problem:keys-unavailable'])
    }
    expect((await get(on, await first.sign())).status).toBe(404)
    issuer.status = 200
    pass(30_000)
    expect((await get(on, await second.sign())).status).toBe(404)
    await refused(on, await (await keyPair('EdDSA', 'three')).sign(), /no key/)
  })

  it('let in whoever names a known one while others wait for one that is not known', async () => {
    const { jwk, sign } = await keyPair('EdDSA', 'one')
    const issuer = await Issuer.open(200, jwk)
    const tokens = await issuer.tokens()
    issuer.hold()
    pass(30_000)
    const waiting = Array.from({ length: 256 }, async (_, n) => tokens.callerOf(forged(n)))
    const ends = Promise.allSettled(waiting)
    await expect.poll(() => issuer.asked).toBe(2)
    // More may not wait.
    await expect(tokens.callerOf(forged(-1))).rejects.toMatchObject({ kind: 'overloaded' })
    expect(await tokens.callerOf(`Bearer ${await sign()}`)).toMatchObject({ subject: 'ops' })
    issuer.release()
    for (const end of await ends) expect(end).toMatchObject({ reason: { kind: 'unauthorized' } })
  })
})

/** Who publishes keys. */
class Issuer {
  status: number
  keys: readonly JWK[]
  asked = 0
  readonly url: string
  #gate: PromiseWithResolvers<void> | undefined

  private constructor(server: Server, status: number, keys: readonly JWK[]) {
    this.status = status
    this.keys = keys
    this.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/jwks?key=hush`
    server.on('request', (_request, response) => void this.#answer(response))
  }

  static async open(status: number, ...keys: JWK[]): Promise<Issuer> {
    const server = createServer()
    await once(server.listen(0, '127.0.0.1'), 'listening')
    onTestFinished(() => void server.close())
    return new Issuer(server, status, keys)
  }

  tokens(): Promise<Tokens> {
    return tokensOf({ keys: { jwks: this.url }, algorithms: ['EdDSA'] })
  }

  async #answer(response: ServerResponse): Promise<void> {
    this.asked++
    await this.#gate?.promise
    response.writeHead(this.status, { 'content-type': 'application/json' }).end(JSON.stringify({ keys: this.keys }))
  }

  /** Answers nobody until `release`. */
  hold(): void {
    this.#gate = Promise.withResolvers()
  }

  release(): void {
    this.#gate?.resolve()
  }
}
