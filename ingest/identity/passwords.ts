import * as crypto from 'node:crypto'
import { createHash, createHmac, hash, randomBytes, timingSafeEqual } from 'node:crypto'
import { setImmediate as turn } from 'node:timers/promises'
import { promisify } from 'node:util'
import { Limiter } from '../../processor/runtime/limiter.ts'
import { DeviceList, isName, type Kind } from './principal.ts'

/** A line of the file of passwords. */
export interface PasswordLine {
  readonly name: string
  readonly kind: Exclude<Kind, 'anyone'>
  readonly devices: DeviceList | undefined
  /** Tells lines apart, and shows nothing of the password. */
  readonly credentialId: string
  readonly hash: PasswordHash
}

interface PasswordHash {
  /** Takes so long that only a few may be computed at once. */
  readonly slow: boolean
  matches(password: Buffer): boolean | Promise<boolean>
}

const MAX_LINES = 1_000_000
/** Passwords of one name that are good at the same time: for rotation. */
const MAX_LINES_PER_NAME = 4
const LINES_PER_TURN = 500

/** Slow hashes computed at once, on the threads of libuv; others wait up to this long, ms. */
const SLOW_AT_ONCE = 2
const SLOW_WITHIN_MS = 5_000

const scrypt = promisify<Buffer, Buffer, number, crypto.ScryptOptions, Buffer>(crypto.scrypt)
const pbkdf2 = promisify(crypto.pbkdf2)

/** Too many passwords are being verified. */
export class BusyError extends Error {}

/**
 * The file of passwords, in Mosquitto's form, `name:hash`, with an optional third part: `gateway=truck-*,van-7` or
 * `service`. A name may have several lines.
 */
export class Passwords {
  readonly #lines = new Map<string, PasswordLine[]>()
  readonly #ids = new Set<string>()
  readonly #slow = new Limiter(SLOW_AT_ONCE, {
    ms: SLOW_WITHIN_MS,
    over: () => new BusyError('too many passwords are being verified'),
  })

  /** Rejects with an error that names the line, and shows nothing of it. */
  static async parse(text: string): Promise<Passwords> {
    const passwords = new Passwords()
    const lines = text.split('\n')
    if (lines.length > MAX_LINES) throw new Error(`has more than ${MAX_LINES} lines`)
    for (const [i, raw] of lines.entries()) {
      if (i % LINES_PER_TURN === LINES_PER_TURN - 1) await turn()
      const line = raw.trim()
      if (line === '' || line.startsWith('#')) continue
      try {
        passwords.#add(parseLine(line))
      } catch (error) {
        throw new Error(`line ${i + 1}: ${(error as Error).message}`, { cause: error })
      }
    }
    return passwords
  }

  #add(line: PasswordLine): void {
    const before = this.#lines.get(line.name) ?? []
    if (before.length >= MAX_LINES_PER_NAME) throw new Error(`${line.name} has more than ${MAX_LINES_PER_NAME} lines`)
    this.#lines.set(line.name, [...before, line])
    this.#ids.add(line.credentialId)
  }

  /** Resolves with undefined when the password is wrong. Rejects with BusyError. */
  async find(name: string, password: Buffer): Promise<PasswordLine | undefined> {
    for (const line of this.#lines.get(name) ?? []) {
      const matches = line.hash.slow
        ? await this.#slow.run(async () => line.hash.matches(password))
        : await line.hash.matches(password)
      if (matches) return line
    }
    return undefined
  }

  /** The line is still in the file. */
  has(credentialId: string): boolean {
    return this.#ids.has(credentialId)
  }

  *all(): Generator<PasswordLine> {
    for (const lines of this.#lines.values()) yield* lines
  }
}

function parseLine(line: string): PasswordLine {
  const [name = '', text = '', role = 'device', ...rest] = line.split(':')
  if (!isName(name)) throw new Error('must begin with a name of up to 128 characters without / + # % and :')
  const [kind, list, ...more] = role.split('=')
  if (rest.length > 0 || more.length > 0) throw new Error('must be name:hash, or name:hash:kind')
  const isKind = kind === 'device' || kind === 'service' || kind === 'gateway'
  if (!isKind || (kind === 'gateway') !== (list !== undefined)) {
    throw new Error('has a third part that is not device, service or gateway=id,beginning*')
  }
  const devices = list === undefined ? undefined : DeviceList.parse(list)
  const credentialId = `password ${name} ${hash('sha256', line, 'hex').slice(0, 8)}`
  return { name, kind, devices, credentialId, hash: parseHash(text) }
}

const BASE64 = /^[A-Za-z0-9+/]+={0,2}$/

function bytes(text: string | undefined): Buffer {
  if (text === undefined || !BASE64.test(text)) throw new Error('has a hash that is not whole')
  return Buffer.from(text, 'base64')
}

function parseHash(text: string): PasswordHash {
  const [empty, scheme, ...parts] = text.split('$')
  if (empty === '') {
    if (scheme === 'sha256') return generated(bytes(parts[0]), bytes(parts[1]))
    if (scheme === 'scrypt') return scrypted(parts)
    if (scheme === '7') return mosquitto7(parts)
    if (scheme === '6') return mosquitto6(parts)
    if (scheme === 'argon2id') return argon2id(parts)
  }
  throw new Error('has no hash of a known kind ($sha256$, $scrypt$, $7$, $6$, $argon2id$)')
}

function equal(a: Buffer, b: Buffer): boolean {
  return a.length === b.length && timingSafeEqual(a, b)
}

/** An HMAC is enough for a secret of 256 bits, which nobody can guess, and takes some microseconds. */
function generated(salt: Buffer, digest: Buffer): PasswordHash {
  return { slow: false, matches: (password) => equal(createHmac('sha256', salt).update(password).digest(), digest) }
}

/** RFC 7914; the form is that of passlib: `$scrypt$ln=15,r=8,p=1$salt$hash`. */
function scrypted([settings = '', salt, digest]: readonly string[]): PasswordHash {
  const [, ln, r, p] = /^ln=(\d{1,2}),r=(\d{1,2}),p=(\d{1,2})$/.exec(settings) ?? []
  const cost = { N: 2 ** Number(ln), r: Number(r), p: Number(p), maxmem: 256 * 1024 * 1024 }
  if (!(Number(ln) >= 10 && Number(ln) <= 17 && cost.r >= 1 && cost.p >= 1))
    throw new Error('has scrypt settings out of range')
  const [saltBytes, expected] = [bytes(salt), bytes(digest)]
  return {
    slow: true,
    matches: async (password) => equal(await scrypt(password, saltBytes, expected.length, cost), expected),
  }
}

/** Mosquitto's PBKDF2 with HMAC-SHA-512: `$7$iterations$salt$hash`. */
function mosquitto7([count = '', salt, digest]: readonly string[]): PasswordHash {
  const iterations = Number(count)
  if (!(Number.isInteger(iterations) && iterations >= 1 && iterations <= 10_000_000)) {
    throw new Error('has a number of iterations out of range')
  }
  const [saltBytes, expected] = [bytes(salt), bytes(digest)]
  return {
    slow: true,
    matches: async (password) =>
      equal(await pbkdf2(password, saltBytes, iterations, expected.length, 'sha512'), expected),
  }
}

/** Mosquitto's older form, SHA-512 of password and salt: `$6$salt$hash`. */
function mosquitto6([salt, digest]: readonly string[]): PasswordHash {
  const [saltBytes, expected] = [bytes(salt), bytes(digest)]
  const matches = (password: Buffer) =>
    equal(createHash('sha512').update(password).update(saltBytes).digest(), expected)
  return { slow: false, matches }
}

/** `crypto.argon2` of Node 24.7 and newer, which its types lack. */
type Argon2 = (
  algorithm: 'argon2id',
  options: {
    readonly message: Buffer
    readonly nonce: Buffer
    readonly parallelism: number
    readonly tagLength: number
    readonly memory: number
    readonly passes: number
  },
  done: (error: Error | null, tag: Buffer) => void,
) => void

/** RFC 9106, which Mosquitto 2.1 makes: `$argon2id$v=19$m=…,t=…,p=…$salt$hash`. */
function argon2id([version, settings = '', salt, digest]: readonly string[]): PasswordHash {
  const { argon2 } = crypto as unknown as { argon2?: Argon2 }
  if (argon2 === undefined) throw new Error('has an argon2id hash, which needs Node 24.7 or newer')
  const [, m, t, p] = /^m=(\d{1,6}),t=(\d{1,3}),p=(\d{1,2})$/.exec(settings) ?? []
  if (version !== 'v=19' || m === undefined) throw new Error('has argon2id settings out of range')
  const [nonce, expected] = [bytes(salt), bytes(digest)]
  const fixed = { nonce, memory: Number(m), passes: Number(t), parallelism: Number(p), tagLength: expected.length }
  return {
    slow: true,
    matches: async (message) => equal(await promisify(argon2)('argon2id', { message, ...fixed }), expected),
  }
}

/** A secret of 256 bits, as text, and the hash that is kept of it. */
export function newSecret(): { readonly secret: string; readonly hash: string } {
  const secret = randomBytes(32).toString('base64url')
  const salt = randomBytes(16)
  return {
    secret,
    hash: `$sha256$${salt.toString('base64')}$${createHmac('sha256', salt).update(secret).digest('base64')}`,
  }
}

/** The hash of a password that a person chose. */
export async function hashOfChosen(password: string): Promise<string> {
  const salt = randomBytes(16)
  const cost = { N: 2 ** 15, r: 8, p: 1, maxmem: 64 * 1024 * 1024 }
  const digest = await scrypt(Buffer.from(password), salt, 32, cost)
  return `$scrypt$ln=15,r=8,p=1$${salt.toString('base64')}$${digest.toString('base64')}`
}
