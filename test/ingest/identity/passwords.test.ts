import { createHash, pbkdf2Sync } from 'node:crypto'
import { describe, expect, it, test } from 'vitest'
import { hashOfChosen, newSecret, Passwords } from '../../../ingest/identity/passwords.ts'

const SALT = Buffer.from('0123456789ab')
const b64 = (bytes: Buffer): string => bytes.toString('base64')
/** As mosquitto_passwd of Mosquitto 2.0 and 1.6 writes them. */
const MOSQUITTO_7 = `$7$101$${b64(SALT)}$${b64(pbkdf2Sync('opensesame', SALT, 101, 64, 'sha512'))}`
const MOSQUITTO_6 = `$6$${b64(SALT)}$${b64(createHash('sha512').update('opensesame').update(SALT).digest())}`

async function find(file: string, name: string, password: string): Promise<string | undefined> {
  return (await (await Passwords.parse(file)).find(name, Buffer.from(password)))?.kind
}

describe('a password', () => {
  it('that was generated is good, and no other', async () => {
    const { secret, hash } = newSecret()
    expect(Buffer.from(secret, 'base64url')).toHaveLength(32)
    const file = `truck-1:${hash}\n`
    expect(file).not.toContain(secret)
    expect(await find(file, 'truck-1', secret)).toBe('device')
    expect(await find(file, 'truck-1', `${secret}x`)).toBeUndefined()
    expect(await find(file, 'truck-2', secret)).toBeUndefined()
  })

  it.each([
    ['scrypt', () => hashOfChosen('opensesame')],
    ['Mosquitto 2.0', () => MOSQUITTO_7],
    ['Mosquitto 1.6', () => MOSQUITTO_6],
  ])('that was hashed by %s is good, and no other', async (_, hash) => {
    const file = `ops:${await hash()}:service\n`
    expect(await find(file, 'ops', 'opensesame')).toBe('service')
    expect(await find(file, 'ops', 'opensesam')).toBeUndefined()
  })

  it('may be one of several of a name, which are told apart', async () => {
    const [old, next] = [newSecret(), newSecret()]
    const passwords = await Passwords.parse(`a:${old.hash}\na:${next.hash}\n`)
    const ids = [...passwords.all()].map(({ credentialId }) => credentialId)
    expect(new Set(ids).size).toBe(2)
    for (const [i, { secret }] of [old, next].entries()) {
      expect((await passwords.find('a', Buffer.from(secret)))?.credentialId).toBe(ids[i])
    }
    const after = await Passwords.parse(`a:${next.hash}\n`)
    expect(ids.map((id) => after.has(id))).toEqual([false, true])
  })
})

test('a gateway has ids and beginnings of ids', async () => {
  const [line] = (await Passwords.parse(`gw:${newSecret().hash}:gateway=truck-*,van-7`)).all()
  expect(['truck-1', 'van-7', 'van-71', 'gw'].map((id) => line?.devices?.has(id))).toEqual([true, true, false, false])
})

test.each([
  ['a', /^line 1: .*hash/],
  [`# comment\na/b:${newSecret().hash}`, /^line 2: .*name/],
  ['a:$6$x', /^line 1: has a hash that is not whole$/],
  ['a:$7$0$QQ==$QQ==', /^line 1: .*iterations/],
  ['a:$5$QQ==$QQ==', /^line 1: has no hash of a known kind/],
  [`a:${newSecret().hash}:admin`, /^line 1: .*third part/],
  [`a:${newSecret().hash}:gateway=a b`, /^line 1: "a b" is neither/],
])('a line that cannot be used is refused by its number', async (text, reason) => {
  const refusal = await Passwords.parse(text).catch((error: unknown) => (error as Error).message)
  expect(refusal).toMatch(reason)
  expect(refusal).not.toMatch(/\$\w+\$\w/)
})
