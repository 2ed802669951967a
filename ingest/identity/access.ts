import { isLoopback } from '../../processor/contract/address.ts'
import { ConfigurationError, reasonOf } from '../../processor/contract/errors.ts'
import type { Configuration } from '../../processor/runtime/environment.ts'
import { readTokenSettings, type TokenSettings } from '../../processor/runtime/jwt.ts'
import type { TlsFiles } from '../../processor/runtime/tls.ts'
import type { NamedFile } from '../../processor/runtime/watched-files.ts'
import { type NameTemplate, parseTemplates } from './certificates.ts'

/** How clients prove who they are. */
type Way = 'tls' | 'password' | 'jwt'

/** Where MQTT is served, and to whom. */
export interface MqttAccess {
  readonly host: string
  /** Undefined: MQTT without TLS is not served. 0: any free port. */
  readonly port: number | undefined
  readonly tls: (TlsFiles & { readonly port: number }) | undefined
  /** Empty: anyone may connect. */
  readonly ways: ReadonlySet<Way>
  readonly names: readonly NameTemplate[]
  readonly crl: NamedFile | undefined
  readonly passwords: NamedFile | undefined
  readonly acl: NamedFile | undefined
  readonly tokens: TokenSettings | undefined
  /** Web pages that may open a WebSocket, by the origin that their browser sends. */
  readonly origins: readonly string[]
}

/** Throws ConfigurationError: beyond this machine MQTT asks who a client is, or somebody says aloud that it does not. */
export function readMqttAccess(configuration: Configuration): MqttAccess {
  const { HOST, MQTT_AUTH, MQTT_PORT, MQTT_TLS_PORT, MQTT_TLS_CERT, MQTT_TLS_KEY, MQTT_TLS_NAME } = configuration
  const file = (variable: 'MQTT_TLS_CA' | 'MQTT_TLS_CRL' | 'MQTT_PASSWORDS' | 'MQTT_ACL'): NamedFile | undefined => {
    const path = configuration[variable]
    return path === undefined ? undefined : { variable, path }
  }
  const [ca, crl, passwords, acl] = [
    file('MQTT_TLS_CA'),
    file('MQTT_TLS_CRL'),
    file('MQTT_PASSWORDS'),
    file('MQTT_ACL'),
  ]
  const asked = MQTT_AUTH?.split(',') ?? []
  const ways = new Set(asked.filter((way): way is Way => way !== 'none'))
  if (MQTT_AUTH === undefined && !isLoopback(HOST)) {
    throw refused(
      `HOST=${HOST}: MQTT would let anyone who reaches this address publish and read without asking who it is; ` +
        'set MQTT_AUTH to tls, password or jwt, or HOST=127.0.0.1, or MQTT_AUTH=none if that is what you want',
    )
  }
  if (asked.includes('none') && asked.length > 1) throw refused(`MQTT_AUTH=${MQTT_AUTH}: none stands alone`)
  need(ways.has('password'), 'password', passwords)
  need(ways.has('tls'), 'tls', ca)
  if (crl !== undefined && ca === undefined) throw refused('MQTT_TLS_CRL is set: set MQTT_TLS_CA, or unset it')
  if ((MQTT_TLS_CERT === undefined) !== (MQTT_TLS_KEY === undefined)) {
    throw refused('MQTT_TLS_CERT and MQTT_TLS_KEY: set both, or none')
  }
  if (ca !== undefined && MQTT_TLS_CERT === undefined) {
    throw refused('MQTT_TLS_CA is set: set MQTT_TLS_CERT and MQTT_TLS_KEY, or unset it')
  }
  if (MQTT_PORT === 'off' && MQTT_TLS_CERT === undefined) {
    throw refused('MQTT_PORT=off: MQTT would not be served at all; set MQTT_TLS_CERT and MQTT_TLS_KEY')
  }
  return {
    host: HOST,
    port: MQTT_PORT === 'off' ? undefined : MQTT_PORT,
    tls:
      MQTT_TLS_CERT === undefined || MQTT_TLS_KEY === undefined
        ? undefined
        : {
            port: MQTT_TLS_PORT,
            cert: { variable: 'MQTT_TLS_CERT', path: MQTT_TLS_CERT },
            key: { variable: 'MQTT_TLS_KEY', path: MQTT_TLS_KEY },
            ca,
          },
    ways,
    names: templates(MQTT_TLS_NAME),
    crl,
    passwords,
    acl,
    tokens: ways.has('jwt') ? tokenSettings(configuration) : undefined,
    origins: configuration.MQTT_ORIGINS?.split(',') ?? [],
  }
}

const NEEDED = {
  password: ['MQTT_PASSWORDS', 'a file that "tidemark credential" makes'],
  tls: ['MQTT_TLS_CA', "a PEM file with the authority of the devices' certificates"],
} as const

function need(asked: boolean, way: keyof typeof NEEDED, given: NamedFile | undefined): void {
  const [variable, what] = NEEDED[way]
  if (asked && given === undefined) throw refused(`MQTT_AUTH has ${way}: set ${variable} (${what})`)
  if (!asked && given !== undefined) throw refused(`${variable} is set: add ${way} to MQTT_AUTH, or unset it`)
}

function templates(text: string): NameTemplate[] {
  try {
    return parseTemplates(text)
  } catch (error) {
    throw refused(`MQTT_TLS_NAME: ${reasonOf(error)}`)
  }
}

/** A token for the API must be of no use to publish, and the other way round. */
function tokenSettings(configuration: Configuration): TokenSettings {
  const { MQTT_AUDIENCE, AUTH_AUDIENCE } = configuration
  if (MQTT_AUDIENCE === AUTH_AUDIENCE) {
    throw refused(
      `MQTT_AUDIENCE=${MQTT_AUDIENCE}: must differ from AUTH_AUDIENCE, or a dashboard's token could publish`,
    )
  }
  return readTokenSettings(configuration, 'MQTT_AUTH=jwt', MQTT_AUDIENCE)
}

function refused(message: string): ConfigurationError {
  return new ConfigurationError('INVALID_CONFIGURATION', message)
}
