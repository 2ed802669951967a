import type { Logger } from 'pino'
import { isDeviceId } from '../../processor/contract/record.ts'
import { TokenError, TokenVerifier } from '../../processor/runtime/jwt.ts'
import { type NamedFile, WatchedFiles } from '../../processor/runtime/watched-files.ts'
import type { Limits } from '../limits.ts'
import type { MqttAccess } from './access.ts'
import { Acl } from './acl.ts'
import { type ClientCertificate, fingerprintsIn, RevocationList } from './certificates.ts'
import { BusyError, Passwords } from './passwords.ts'
import { anyone, type Credential, DeviceList, isName, Principal } from './principal.ts'

/** CONNACK return codes, MQTT 3.1.1 section 3.2.2.3. */
const SERVER_UNAVAILABLE = 3
const BAD_NAME_OR_PASSWORD = 4
const NOT_AUTHORIZED = 5

/** Failed logins of one name from one address within the time after which it is locked out for as long. */
const MAX_FAILURES = 10
const FAILURES_WITHIN_MS = 60_000
/** Addresses and names that are remembered. At the bound the one that failed first is forgotten. */
const MAX_FAILING = 10_000
/** Beginnings of device ids in a token. */
const MAX_PREFIXES = 64
/** A JWT in compact form (RFC 7519 section 3). */
const JWT = /^[\w-]+\.[\w-]+\.[\w-]+$/

/** How a client is refused. */
export class LoginError extends Error {
  readonly returnCode: 3 | 4 | 5
  /** When CONNACK leaves, ms from now. */
  readonly afterMs: number

  constructor(returnCode: LoginError['returnCode'], message: string, afterMs = 0) {
    super(message)
    this.name = 'LoginError'
    this.returnCode = returnCode
    this.afterMs = afterMs
  }
}

/** What a client shows in CONNECT and below it. */
export interface Login {
  readonly clientId: string
  readonly username: string | undefined
  readonly password: Buffer | undefined
  readonly address: string
  readonly certificate: ClientCertificate | undefined
}

/** The other end of a connection. */
export type Peer = Pick<Login, 'address' | 'certificate'>

interface GuardOptions {
  readonly access: MqttAccess
  readonly limits: Pick<Limits, 'failedLoginMs'>
  readonly logger: Logger
  /** Epoch ms. */
  readonly now: () => number
}

/** Knows who a client is and what it may do. Its files are followed. */
export class Guard implements AsyncDisposable {
  readonly #access: MqttAccess
  readonly #limits: Pick<Limits, 'failedLoginMs'>
  readonly #now: () => number
  readonly #files = new AsyncDisposableStack()
  readonly #failures = new Failures()
  #acl: WatchedFiles<Acl> | undefined
  #passwords: WatchedFiles<Passwords> | undefined
  #crl: WatchedFiles<RevocationList> | undefined
  #roots: WatchedFiles<ReadonlySet<string>> | undefined
  #tokens: TokenVerifier | undefined
  #rulesVersion = 0

  private constructor({ access, limits, now }: GuardOptions) {
    this.#access = access
    this.#limits = limits
    this.#now = now
  }

  /** Rejects with ConfigurationError when a file cannot be used. */
  static async open(options: GuardOptions): Promise<Guard> {
    const { access, logger, now } = options
    const guard = new Guard(options)
    const watch = async <T>(file: NamedFile | undefined, parse: (text: string) => T | Promise<T>) =>
      file === undefined
        ? undefined
        : guard.#files.use(
            await WatchedFiles.open({ files: [file], parse: ([text = '']: readonly string[]) => parse(text), logger }),
          )
    try {
      guard.#acl = await watch(access.acl, (text) => Acl.parse(text))
      if (guard.#acl !== undefined) guard.#acl.onChange = () => guard.#rulesVersion++
      guard.#passwords = await watch(access.passwords, (text) => Passwords.parse(text))
      guard.#crl = await watch(access.crl, (text) => RevocationList.parse(text))
      guard.#roots = await watch(access.tls?.ca, fingerprintsIn)
      if (access.tokens !== undefined) {
        guard.#tokens = await TokenVerifier.open({ ...access.tokens, logger, now, steady: () => performance.now() })
      }
      return guard
    } catch (error) {
      await guard.#files.disposeAsync()
      throw error
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#files.disposeAsync()
  }

  /** Grows with each change of the file of rights. */
  get rulesVersion(): number {
    return this.#rulesVersion
  }

  /** Nobody is asked for a credential, so none can be withdrawn. */
  get isOpen(): boolean {
    return this.#access.ways.size === 0
  }

  /** Says why clients cannot be told apart now. */
  check(): readonly string[] {
    return [this.#tokens?.check() ?? []].flat()
  }

  /** Gives a principal the rights that the file has now. */
  renew(principal: Principal): void {
    const acl = this.#acl?.value
    if (acl !== undefined)
      principal.setRules(acl.rulesFor(principal.id === '' ? undefined : principal.id, principal.clientId))
  }

  /** A client where nobody is asked. Without a file of rights it may do everything. */
  anyone(clientId: string): Principal {
    return anyone(clientId, this.#acl?.value.rulesFor(undefined, clientId))
  }

  /** Rejects with LoginError. A client certificate goes before a password, which goes after a token. */
  async authenticate(login: Login): Promise<Principal> {
    const { clientId, address, username = '' } = login
    const failing = `${address} ${login.certificate?.name ?? username}`
    if (this.#failures.isLocked(failing, performance.now())) {
      throw new LoginError(
        NOT_AUTHORIZED,
        `too many failed logins as ${username} from ${address}`,
        this.#limits.failedLoginMs,
      )
    }
    try {
      const credential = await this.#credentialOf(login)
      const { id } = credential
      if (clientId !== '' && clientId !== id && !clientId.startsWith(`${id}/`)) {
        throw new LoginError(NOT_AUTHORIZED, `the client id must be ${id}, or begin with ${id}/`)
      }
      if (credential.kind === 'device' && !isDeviceId(id)) {
        throw new LoginError(NOT_AUTHORIZED, `${JSON.stringify(id)} is no device id`)
      }
      return new Principal(credential, clientId, this.#acl?.value.rulesFor(id, clientId) ?? [])
    } catch (error) {
      if (error instanceof BusyError) throw new LoginError(SERVER_UNAVAILABLE, error.message)
      if (!(error instanceof LoginError) || error.returnCode === SERVER_UNAVAILABLE) throw error
      this.#failures.add(failing, performance.now())
      throw new LoginError(error.returnCode, error.message, this.#limits.failedLoginMs)
    }
  }

  async #credentialOf({ username, password, certificate }: Login): Promise<Credential> {
    const { ways } = this.#access
    if (ways.has('tls') && certificate !== undefined) return this.#certified(certificate)
    if (password === undefined) {
      const needed = [
        ways.has('tls') ? 'a client certificate' : [],
        ways.size > 1 || !ways.has('tls') ? 'a password' : [],
      ]
      throw new LoginError(NOT_AUTHORIZED, `${needed.flat().join(' or ')} is needed`)
    }
    const text = password.toString('latin1')
    if (this.#tokens !== undefined && JWT.test(text)) return this.#bearer(this.#tokens, text)
    const found = username === undefined ? undefined : await this.#passwords?.value.find(username, password)
    if (found === undefined) throw new LoginError(BAD_NAME_OR_PASSWORD, 'the name or the password is wrong')
    const { name: id, kind, devices, credentialId } = found
    return { id, kind, devices, credentialId, isGood: () => this.#passwords?.value.has(credentialId) === true }
  }

  #certified(certificate: ClientCertificate): Credential {
    const { name, serial, notAfter, root } = certificate
    if (name === undefined) throw new LoginError(NOT_AUTHORIZED, 'no name in the certificate fits MQTT_TLS_NAME')
    if (this.#crl?.value.has(certificate) === true) throw new LoginError(NOT_AUTHORIZED, 'the certificate was revoked')
    const roots = this.#roots?.value
    // After the authorities changed, who was verified with one that is gone, or with one unknown, comes again.
    const isGood = () =>
      this.#crl?.value.has(certificate) !== true &&
      (this.#roots?.value === roots || (root !== undefined && this.#roots?.value.has(root) === true))
    return { id: name, kind: 'device', credentialId: `certificate ${serial}`, expiresAt: notAfter, isGood }
  }

  async #bearer(tokens: TokenVerifier, token: string): Promise<Credential> {
    const { claims, expiresAt, isTrusted } = await tokens.verify(token).catch((error: unknown) => {
      if (!(error instanceof TokenError)) throw error
      const code = error.kind === 'invalid' ? NOT_AUTHORIZED : SERVER_UNAVAILABLE
      throw new LoginError(code, `the token is not accepted: ${error.message}`)
    })
    const { sub, devices, jti } = claims
    if (sub === undefined || !isName(sub)) throw new LoginError(NOT_AUTHORIZED, 'the claim sub of the token is no name')
    const list = Array.isArray(devices) ? (devices as unknown[]) : undefined
    const prefixes = list?.filter((prefix): prefix is string => typeof prefix === 'string' && isDeviceId(prefix))
    if (
      devices !== undefined &&
      (prefixes === undefined || prefixes.length !== list?.length || prefixes.length > MAX_PREFIXES)
    ) {
      const message = `the claim devices of the token is not a list of up to ${MAX_PREFIXES} beginnings of device ids`
      throw new LoginError(NOT_AUTHORIZED, message)
    }
    const isDevice = prefixes === undefined
    return {
      id: sub,
      kind: isDevice ? 'device' : 'gateway',
      devices: isDevice ? undefined : new DeviceList([], prefixes),
      credentialId: `token ${jti ?? sub}`,
      expiresAt,
      isGood: isTrusted,
    }
  }

  /** Whether a connection may go on. */
  isOver({ credential: { expiresAt, isGood } }: Principal): boolean {
    return (expiresAt !== undefined && this.#now() >= expiresAt) || !isGood()
  }
}

/** Counts failed logins by address and name. */
class Failures {
  readonly #counts = new Map<string, { count: number; readonly endsAt: number }>()

  /** `now`: steady ms. */
  isLocked(who: string, now: number): boolean {
    const failures = this.#counts.get(who)
    return failures !== undefined && failures.endsAt > now && failures.count >= MAX_FAILURES
  }

  add(who: string, now: number): void {
    const before = this.#counts.get(who)
    if (before !== undefined && before.endsAt > now) {
      before.count++
      return
    }
    this.#counts.delete(who)
    this.#counts.set(who, { count: 1, endsAt: now + FAILURES_WITHIN_MS })
    const [first] = this.#counts.keys()
    if (this.#counts.size > MAX_FAILING && first !== undefined) this.#counts.delete(first)
  }
}
