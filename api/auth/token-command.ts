import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { exportJWK, generateKeyPair, importJWK, type JWK, SignJWT } from 'jose'
import { ConfigurationError } from '../../processor/contract/errors.ts'
import { isDeviceId } from '../../processor/contract/record.ts'
import type { Configuration } from '../../processor/runtime/environment.ts'
import { SCOPES, type Scope } from './caller.ts'

const USAGE = `usage: tidemark token --subject NAME --scope "devices:read devices:write ops:read" [flags]
       tidemark token --subject NAME --mqtt [flags]
  --mqtt             for the MQTT client NAME; with --devices it is a gateway of devices whose id starts with these
  --devices p1,p2    only for devices whose id starts with one of these
  --expires 1h       how long it is good: a number and s, m, h or d; default 1h
  --key FILE         signs with this private JWK; else with AUTH_SECRET
       tidemark token --new-key FOLDER [--algorithm ES256]
  makes a key pair in FOLDER, which is made when it is not there: private.jwk, to sign with, and jwks.json, for
  AUTH_JWKS; one that is there gets the key too
The token has the issuer AUTH_ISSUER and the audience AUTH_AUDIENCE, with --mqtt MQTT_AUDIENCE.`

const UNIT_SECONDS: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3_600, d: 86_400 }

/** Issues tokens for development and for fleets without an issuer. Resolves with the text to print. */
export async function runToken(argv: readonly string[], configuration: Configuration, now: number): Promise<string> {
  const flags = parse(argv)
  if (flags.help) return USAGE
  if (flags['new-key'] !== undefined) return await makeKeys(flags['new-key'], flags.algorithm ?? 'ES256')
  const { subject, devices, mqtt } = flags
  if (subject === undefined || (flags.scope === undefined) !== mqtt) throw refused(USAGE)
  const scope = flags.scope === undefined ? undefined : scopesIn(flags.scope)
  const prefixes = devices?.split(',')
  const bad = prefixes?.find((prefix) => !isDeviceId(prefix))
  if (bad !== undefined)
    throw refused(`--devices ${JSON.stringify(devices)}: ${JSON.stringify(bad)} begins no device id`)
  const issued = Math.floor(now / 1000)
  const { key, header } = await signer(flags.key, configuration)
  const claims = { ...(scope === undefined ? {} : { scope }), ...(prefixes === undefined ? {} : { devices: prefixes }) }
  return await new SignJWT(claims)
    .setProtectedHeader(header)
    .setSubject(subject)
    .setIssuer(configuration.AUTH_ISSUER)
    .setAudience(mqtt ? configuration.MQTT_AUDIENCE : configuration.AUTH_AUDIENCE)
    .setIssuedAt(issued)
    .setExpirationTime(issued + seconds(flags.expires))
    .sign(key)
}

function scopesIn(text: string): string {
  const names = text.split(' ').filter((name) => name !== '')
  if (names.length === 0 || names.some((name) => !SCOPES.has(name as Scope))) {
    throw refused(`--scope ${JSON.stringify(text)}: must be one or more of ${[...SCOPES].join(', ')}`)
  }
  return names.join(' ')
}

function parse(argv: readonly string[]) {
  try {
    return parseArgs({
      args: [...argv],
      options: {
        subject: { type: 'string' },
        scope: { type: 'string' },
        mqtt: { type: 'boolean', default: false },
        devices: { type: 'string' },
        expires: { type: 'string', default: '1h' },
        key: { type: 'string' },
        'new-key': { type: 'string' },
        algorithm: { type: 'string' },
        help: { type: 'boolean', default: false },
      },
    }).values
  } catch (error) {
    throw refused(`${(error as Error).message}\n${USAGE}`, error)
  }
}

function seconds(text: string): number {
  const [, number, unit] = /^([1-9]\d{0,5})([smhd])$/.exec(text) ?? []
  if (number === undefined || unit === undefined)
    throw refused(`--expires ${text}: must be a number and s, m, h or d, as in 90m`)
  return Number(number) * (UNIT_SECONDS[unit] as number)
}

async function signer(file: string | undefined, { AUTH_SECRET, AUTH_ALGORITHMS }: Configuration) {
  if (file === undefined) {
    if (AUTH_SECRET === undefined)
      throw refused('set AUTH_SECRET, or name a private JWK with --key (--new-key makes one)')
    const alg = AUTH_ALGORITHMS?.split(',')[0] ?? 'HS256'
    return { key: new TextEncoder().encode(AUTH_SECRET), header: { alg, typ: 'JWT' } }
  }
  try {
    const { kid, alg, ...rest } = JSON.parse(await readFile(file, 'utf8')) as JWK
    if (alg === undefined || rest.d === undefined) throw new Error('must be a private JWK with "alg"')
    return { key: await importJWK(rest, alg), header: { alg, typ: 'JWT', ...(kid === undefined ? {} : { kid }) } }
  } catch (error) {
    throw refused(`--key ${file}: ${(error as Error).message}`, error)
  }
}

/** Never overwrites `private.jwk`: for another key, move it away. */
async function makeKeys(folder: string, alg: string): Promise<string> {
  const [privateFile, publicFile] = [join(folder, 'private.jwk'), join(folder, 'jwks.json')]
  try {
    const { privateKey, publicKey } = await generateKeyPair(alg, { extractable: true })
    const named = { alg, kid: crypto.randomUUID(), use: 'sig' }
    await mkdir(folder, { recursive: true, mode: 0o700 })
    const { keys } = JSON.parse(await readFile(publicFile, 'utf8').catch(noKeys)) as { keys: JWK[] }
    await writeFile(privateFile, `${JSON.stringify({ ...(await exportJWK(privateKey)), ...named })}\n`, {
      mode: 0o600,
      flag: 'wx',
    })
    keys.push({ ...(await exportJWK(publicKey)), ...named })
    await writeFile(publicFile, `${JSON.stringify({ keys }, null, 2)}\n`)
  } catch (error) {
    throw refused(`--new-key ${folder} --algorithm ${alg}: ${(error as Error).message}`, error)
  }
  return `${privateFile} signs: token --key ${privateFile} …\n${publicFile} verifies: AUTH_JWKS=${publicFile}`
}

function noKeys(error: NodeJS.ErrnoException): string {
  if (error.code !== 'ENOENT') throw error
  return '{"keys":[]}'
}

function refused(message: string, cause?: unknown): ConfigurationError {
  return new ConfigurationError('INVALID_CONFIGURATION', message, cause)
}
