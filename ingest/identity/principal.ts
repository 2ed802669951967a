import { isDeviceId } from '../../processor/contract/record.ts'
import { covers, type Rule } from './acl.ts'

/** `anyone`: no credential was asked for. */
export type Kind = 'device' | 'gateway' | 'service' | 'anyone'

/** Ids, and beginnings of ids with `*` after them. Undefined: none. */
export class DeviceList {
  readonly #ids: ReadonlySet<string>
  readonly #prefixes: readonly string[]

  constructor(ids: readonly string[], prefixes: readonly string[]) {
    this.#ids = new Set(ids)
    this.#prefixes = prefixes
  }

  /** Reads `truck-*,van-7`. Throws when a part is neither a device id nor the beginning of one. */
  static parse(text: string): DeviceList {
    const parts = text.split(',')
    const beginnings = parts.filter((part) => part.endsWith('*')).map((part) => part.slice(0, -1))
    const ids = parts.filter((part) => !part.endsWith('*'))
    const bad = [...ids, ...beginnings].find((id) => !isDeviceId(id))
    if (bad !== undefined) throw new Error(`${JSON.stringify(bad)} is neither a device id nor the beginning of one`)
    return new DeviceList(ids, beginnings)
  }

  has(deviceId: string): boolean {
    if (this.#ids.has(deviceId)) return true
    for (const prefix of this.#prefixes) if (deviceId.startsWith(prefix)) return true
    return false
  }
}

export interface Credential {
  /** The name that was proved. Empty: `anyone`. */
  readonly id: string
  readonly kind: Kind
  /** Of a gateway. */
  readonly devices?: DeviceList | undefined
  /** Epoch ms. Undefined: it has no end. */
  readonly expiresAt?: number | undefined
  /** Tells credentials of one name apart, in the audit log and in lists; it is no secret. */
  readonly credentialId: string
  /** False once the credential was withdrawn: its line is gone, its certificate revoked, the key of its token removed. */
  readonly isGood: () => boolean
}

/** Longest name, UTF-16 code units. A name with one of these signs could be taken for a topic, or for another name. */
const NAME = /^[^/+#%\p{Cc}\p{Cs}]{1,128}$/u

export function isName(text: string): boolean {
  return NAME.test(text)
}

/** Who a connection is, and what it may do. */
export class Principal {
  readonly credential: Credential
  readonly clientId: string
  #reads: readonly string[] = []
  #writes: readonly string[] = []
  #denies: readonly string[] = []

  constructor(credential: Credential, clientId: string, rules: readonly Rule[]) {
    this.credential = credential
    this.clientId = clientId
    this.setRules(rules)
  }

  get id(): string {
    return this.credential.id
  }

  get kind(): Kind {
    return this.credential.kind
  }

  /** The rules of the ACL file, in addition to what each kind may do by itself. */
  setRules(rules: readonly Rule[]): void {
    const { id, kind } = this.credential
    const filters = (...accesses: string[]) =>
      rules.filter(({ access }) => accesses.includes(access)).map(({ filter }) => filter)
    this.#reads = filters('read', 'readwrite')
    if (kind === 'device' || kind === 'gateway') this.#reads = [`commands/${id}/#`, ...this.#reads]
    this.#writes = filters('write', 'readwrite')
    this.#denies = filters('deny')
  }

  /** `deviceId`: the device whose telemetry the topic is, if it is such a topic. */
  mayPublish(topic: string, deviceId: string | undefined): boolean {
    for (const filter of this.#denies) if (covers(filter, topic)) return false
    if (deviceId !== undefined && this.#speaksFor(deviceId)) return true
    for (const filter of this.#writes) if (covers(filter, topic)) return true
    return false
  }

  #speaksFor(deviceId: string): boolean {
    const { id, kind, devices } = this.credential
    if (kind === 'device') return deviceId === id
    return kind === 'gateway' && (deviceId === id || devices?.has(deviceId) === true)
  }

  /** A filter that may match more than the client may read is refused as a whole. */
  maySubscribe(filter: string): boolean {
    if (this.#denies.some((denied) => covers(denied, filter))) return false
    return this.#reads.some((read) => covers(read, filter))
  }

  /** For each message: a filter may be wider than what is denied. */
  mayReceive(topic: string): boolean {
    for (const filter of this.#denies) if (covers(filter, topic)) return false
    return true
  }
}

const ALL: readonly Rule[] = [{ access: 'readwrite', filter: '#' }]
const ANYONE: Credential = { id: '', kind: 'anyone', credentialId: 'anyone', isGood: () => true }

/** A client that was not asked who it is. Without `rules` it may do everything. */
export function anyone(clientId: string, rules: readonly Rule[] = ALL): Principal {
  return new Principal(ANYONE, clientId, rules)
}

/** A connection before CONNACK. */
export const NOBODY = new Principal(ANYONE, '', [])
