import { X509Certificate } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { expect, it, test } from 'vitest'
import { nameIn, parseTemplates, RevocationList } from '../../../ingest/identity/certificates.ts'
import { Authority } from '../../../simulators/authority.ts'
import { removeFolder, temporaryFolder } from '../../../simulators/program.ts'

test.each([
  ['cn:{id}', ['truck-1'], '', 'truck-1'],
  ['cn:dev {id}', ['truck-1'], '', undefined],
  ['uri:urn:fleet:{id}', [], 'DNS:x, URI:urn:fleet:truck-1', 'truck-1'],
  ['dns:{id}.fleet.example,cn:{id}', ['cn-name'], 'DNS:truck-1.fleet.example', 'truck-1'],
  ['dns:{id}.fleet.example,cn:{id}', ['cn-name'], 'DNS:truck-1.other.example', 'cn-name'],
  // Node quotes values in which a comma could be taken for the end.
  ['uri:urn:fleet:{id}', [], 'URI:"urn:x, URI:urn:fleet:truck-1"', undefined],
  ['cn:{id}', ['a/b'], '', undefined],
  ['cn:{id}', ['#'], '', undefined],
])('%s finds the name of a client', (templates, commonNames, subjectAltName, expected) => {
  expect(nameIn({ commonNames, subjectAltName }, parseTemplates(templates))).toBe(expected)
})

test.each(['', 'cn', 'cn:x', 'mail:{id}', 'cn:{id}{id}'])('the template %j is refused', (text) => {
  expect(() => parseTemplates(text)).toThrow(/must be cn:, uri: or dns:/)
})

it('knows which certificates were revoked, by issuer and serial number', async () => {
  const folder = await temporaryFolder()
  const [authority, other] = [await Authority.create(`${folder}/a`, 'A'), await Authority.create(`${folder}/b`, 'B')]
  const files = [await authority.issue('one'), await authority.issue('two'), await other.issue('one')]
  const keys = await Promise.all(
    files.map(async ({ cert }) => RevocationList.keyOf(new X509Certificate(await readFile(cert)).raw)),
  )
  const revoked = async () => {
    const list = RevocationList.parse(await readFile(authority.crl, 'utf8'))
    return keys.map((key) => list.has({ key }))
  }
  await authority.revoke()
  expect(await revoked()).toEqual([false, false, false])
  await authority.revoke('one')
  expect(await revoked()).toEqual([true, false, false])
  await authority.revoke('two')
  expect(await revoked()).toEqual([true, true, false])
  await removeFolder(folder)
})

const block = (bytes: string) => `-----BEGIN X509 CRL-----\n${bytes}\n-----END X509 CRL-----\n`

it('refuses a list that is none', () => {
  expect(() => RevocationList.parse('')).toThrow(/no PEM block/)
  for (const bytes of ['MAA=', 'AAAA', 'MIID', 'MP////8A']) expect(() => RevocationList.parse(block(bytes))).toThrow()
})
