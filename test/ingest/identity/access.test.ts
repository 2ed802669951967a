import { describe, expect, it, test } from 'vitest'
import { readMqttAccess } from '../../../ingest/identity/access.ts'
import { ConfigurationError } from '../../../processor/contract/errors.ts'
import { readEnvironment } from '../../../processor/runtime/environment.ts'

const access = (environment: Record<string, string>) => readMqttAccess(readEnvironment(environment))
const SECRET = { AUTH_SECRET: 'not-so-secret-but-32-bytes-long!' }
const TLS = { MQTT_TLS_CERT: 'c', MQTT_TLS_KEY: 'k' }

describe('without MQTT_AUTH', () => {
  it.each(['127.0.0.1', 'localhost', '::1'])('MQTT is for anyone on %s', (HOST) => {
    expect(access({ HOST }).ways.size).toBe(0)
  })

  it.each(['0.0.0.0', '::', '10.0.0.7', 'example.org'])('it is for nobody on %s', (HOST) => {
    expect(() => access({ HOST })).toThrow(ConfigurationError)
    expect(() => access({ HOST })).toThrow(/^HOST=.*MQTT_AUTH to tls, password or jwt, .*MQTT_AUTH=none/)
    expect(access({ HOST, MQTT_AUTH: 'none' }).ways.size).toBe(0)
  })
})

test.each([
  [{ MQTT_AUTH: 'none,password' }, /none stands alone/],
  [{ MQTT_AUTH: 'password' }, /set MQTT_PASSWORDS/],
  [{ MQTT_PASSWORDS: 'f' }, /add password to MQTT_AUTH/],
  [{ MQTT_AUTH: 'tls', ...TLS }, /set MQTT_TLS_CA/],
  [{ MQTT_AUTH: 'tls', MQTT_TLS_CA: 'f' }, /set MQTT_TLS_CERT and MQTT_TLS_KEY/],
  [{ MQTT_TLS_CERT: 'f' }, /set both, or none/],
  [{ MQTT_TLS_CRL: 'f', ...TLS }, /set MQTT_TLS_CA/],
  [{ MQTT_PORT: 'off' }, /would not be served at all/],
  [{ MQTT_AUTH: 'tls', ...TLS, MQTT_TLS_CA: 'f', MQTT_TLS_NAME: 'cn' }, /MQTT_TLS_NAME: "cn" must be/],
  [{ MQTT_AUTH: 'jwt' }, /MQTT_AUTH=jwt needs either AUTH_SECRET .* or AUTH_JWKS/],
  [{ MQTT_AUTH: 'jwt', ...SECRET, MQTT_AUDIENCE: 'tidemark' }, /must differ from AUTH_AUDIENCE/],
  [
    { MQTT_AUTH: 'jwt', AUTH_JWKS: 'http://id.example/keys?k=s3cret' },
    /^AUTH_JWKS=http:\/\/id\.example\/keys: .*https/,
  ],
  [{ MQTT_AUTH: 'certificate' }, /^MQTT_AUTH="certificate": must match/],
])('%o is refused', (environment, reason) => {
  expect(() => access(environment as unknown as Record<string, string>)).toThrow(reason)
})

it('takes several ways, and the port without TLS away', () => {
  const all = {
    MQTT_AUTH: 'tls,password,jwt',
    ...TLS,
    ...SECRET,
    MQTT_TLS_CA: 'ca',
    MQTT_PASSWORDS: 'p',
    MQTT_PORT: 'off',
  }
  const read = access({ HOST: '0.0.0.0', ...all })
  expect([...read.ways]).toEqual(['tls', 'password', 'jwt'])
  expect(read.port).toBeUndefined()
  expect(read.tls).toMatchObject({ port: 8883, ca: { variable: 'MQTT_TLS_CA', path: 'ca' } })
  expect(read.tokens?.audience).toBe('tidemark-mqtt')
})
