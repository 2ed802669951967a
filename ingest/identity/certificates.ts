import { X509Certificate } from 'node:crypto'
import type { TLSSocket } from 'node:tls'
import { isName } from './principal.ts'

/** The verified certificate of a client. */
export interface ClientCertificate {
  /** The name that it gives the client; undefined when no template fits. */
  readonly name: string | undefined
  /** Issuer and serial number, as in `RevocationList`. */
  readonly key: string
  readonly serial: string
  /** Epoch ms. */
  readonly notAfter: number
  /** SHA-256 fingerprint of the root that it was verified with; undefined after a resumption, which shows no chain. */
  readonly root: string | undefined
}

type Field = 'cn' | 'uri' | 'dns'

/** Where in a certificate the name stands: `cn:{id}`, `uri:urn:example:{id}`, `dns:{id}.devices.example`. */
export interface NameTemplate {
  readonly field: Field
  readonly before: string
  readonly after: string
}

/** Reads a list with commas. Throws an error that names the wrong part. */
export function parseTemplates(text: string): NameTemplate[] {
  return text.split(',').map((part) => {
    const [, field, before, after] = /^(cn|uri|dns):([^{}]*)\{id\}([^{}]*)$/.exec(part) ?? []
    if (field === undefined) throw new Error(`${JSON.stringify(part)} must be cn:, uri: or dns: and a text with {id}`)
    return { field: field as Field, before: before as string, after: after as string }
  })
}

/** The first template that fits a value of the certificate decides. */
export function nameIn(
  { commonNames, subjectAltName }: { readonly commonNames: readonly string[]; readonly subjectAltName: string },
  templates: readonly NameTemplate[],
): string | undefined {
  const values = { cn: commonNames, ...altNames(subjectAltName) }
  for (const { field, before, after } of templates) {
    for (const value of values[field]) {
      if (value.length <= before.length + after.length) continue
      if (!value.startsWith(before) || !value.endsWith(after)) continue
      const name = value.slice(before.length, value.length - after.length)
      if (isName(name)) return name
    }
  }
  return undefined
}

/** Node quotes, as JSON, values in which a comma or a quote could be taken for the end of the value. */
function altNames(text: string): Record<'uri' | 'dns', string[]> {
  const found: Record<'uri' | 'dns', string[]> = { uri: [], dns: [] }
  for (const [, kind, value = ''] of text.matchAll(/(?:^|, )([A-Za-z ]+):("(?:[^"\\]|\\.)*"|[^",]*)(?=, |$)/g)) {
    const plain = value.startsWith('"') ? (JSON.parse(value) as string) : value
    if (kind === 'URI') found.uri.push(plain)
    else if (kind === 'DNS') found.dns.push(plain)
  }
  return found
}

/** The certificate of a client that proved to have its key; undefined when it has none, or one of another authority. */
export function certificateOf(socket: TLSSocket, templates: readonly NameTemplate[]): ClientCertificate | undefined {
  const certificate = socket.authorized ? socket.getPeerX509Certificate() : undefined
  if (certificate === undefined) return undefined
  const { subject, issuerCertificate } = socket.getPeerCertificate(true)
  // Several common names come as a list, which its type does not say.
  const commonNames = [subject.CN ?? []].flat()
  const chain: (typeof issuerCertificate)[] = []
  for (let at = issuerCertificate; at !== undefined && !chain.includes(at); at = at.issuerCertificate) chain.push(at)
  return {
    name: nameIn({ commonNames, subjectAltName: certificate.subjectAltName ?? '' }, templates),
    key: RevocationList.keyOf(certificate.raw),
    serial: certificate.serialNumber,
    notAfter: Date.parse(certificate.validTo),
    root: chain.at(-1)?.fingerprint256,
  }
}

const PEM = /-----BEGIN ([A-Z0-9 ]+)-----([A-Za-z0-9+/=\s]*)-----END \1-----/g

/** The fingerprints of the certificates in a PEM text. */
export function fingerprintsIn(pem: string): ReadonlySet<string> {
  const blocks = [...pem.matchAll(PEM)].filter(([, label]) => label === 'CERTIFICATE')
  return new Set(blocks.map(([block]) => new X509Certificate(block).fingerprint256))
}

const INTEGER = 0x02
const SEQUENCE = 0x30
const UTC_TIME = 0x17
const GENERALIZED_TIME = 0x18

/** Certificates that their authorities took back (RFC 5280 section 5.1). The file is trusted: signatures are not verified. */
export class RevocationList {
  readonly #revoked = new Set<string>()

  /** Reads PEM blocks of CRLs. Throws when there are none, or one is malformed. */
  static parse(pem: string): RevocationList {
    const list = new RevocationList()
    let blocks = 0
    for (const [, label, base64 = ''] of pem.matchAll(PEM)) {
      if (label !== 'X509 CRL') continue
      blocks++
      list.#add(Buffer.from(base64, 'base64'))
    }
    if (blocks === 0) throw new Error('has no PEM block "X509 CRL"')
    return list
  }

  /** Issuer and serial number of a certificate in DER (RFC 5280 section 4.1). */
  static keyOf(certificate: Buffer): string {
    const tbs = firstIn(element(certificate, 0, SEQUENCE))
    const first = element(certificate, tbs.start)
    const serial = first.tag === INTEGER ? first : element(certificate, first.end, INTEGER)
    const algorithm = element(certificate, serial.end, SEQUENCE)
    return keyFrom(certificate, serial, element(certificate, algorithm.end, SEQUENCE))
  }

  has({ key }: Pick<ClientCertificate, 'key'>): boolean {
    return this.#revoked.has(key)
  }

  #add(crl: Buffer): void {
    const tbs = firstIn(element(crl, 0, SEQUENCE))
    let at = tbs.start
    let part = element(crl, at)
    if (part.tag === INTEGER) at = part.end
    // The algorithm of the signature.
    at = element(crl, at, SEQUENCE).end
    const issuer = element(crl, at, SEQUENCE)
    for (at = issuer.end; at < tbs.end; at = part.end) {
      part = element(crl, at)
      if (part.tag !== UTC_TIME && part.tag !== GENERALIZED_TIME) break
    }
    // It is absent when nothing was taken back; what follows has another tag.
    if (at >= tbs.end || part.tag !== SEQUENCE) return
    for (let entry = part.start; entry < part.end; ) {
      const one = element(crl, entry, SEQUENCE)
      this.#revoked.add(keyFrom(crl, element(crl, one.start, INTEGER), issuer))
      entry = one.end
    }
  }
}

function keyFrom(bytes: Buffer, serial: Element, issuer: Element): string {
  return `${bytes.toString('hex', serial.start, serial.end)} ${bytes.toString('base64', issuer.start, issuer.end)}`
}

/** A value in DER (X.690): its tag, and where its content starts and ends. */
interface Element {
  readonly bytes: Buffer
  readonly tag: number
  readonly start: number
  readonly end: number
}

function element(bytes: Buffer, at: number, expected?: number): Element {
  const tag = bytes[at]
  const first = bytes[at + 1]
  if (tag === undefined || first === undefined) throw new Error('is not whole DER')
  if (expected !== undefined && tag !== expected) throw new Error(`has the tag ${tag} where ${expected} must be`)
  const lengthBytes = first < 0x80 ? 0 : first & 0x7f
  const start = at + 2 + lengthBytes
  if (lengthBytes > 4 || start > bytes.length || first === 0x80) throw new Error('has a length that is not DER')
  const end = start + (lengthBytes === 0 ? first : bytes.readUIntBE(at + 2, lengthBytes))
  if (end > bytes.length) throw new Error('ends before its content does')
  return { bytes, tag, start, end }
}

function firstIn({ bytes, start }: Element): Element {
  return element(bytes, start, SEQUENCE)
}
