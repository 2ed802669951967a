import { type Static, Type } from 'typebox'
import { Value } from 'typebox/value'
import { ConfigurationError } from './errors.ts'

const Port = (value: number, description: string) =>
  Type.Integer({ minimum: 0, maximum: 65_535, default: value, description: `${description}; 0: any free port` })

/** Of a value that no error and no log line may show. */
const Secret = (pattern: string, description: string) =>
  Type.Optional(Type.String({ pattern, description, secret: true }))

/** Of a signature. There is no `none`. */
const ALGORITHM = '(HS256|HS384|HS512|RS256|RS384|RS512|PS256|PS384|PS512|ES256|ES384|ES512|EdDSA)'

const NAME = '^[A-Za-z0-9._-]{1,100}$'

/** Every environment variable that Tidemark reads. */
const Environment = Type.Object({
  MQTT_PORT: Port(1883, 'MQTT over TCP and over WebSocket'),
  HTTP_PORT: Port(8080, 'the API'),
  HOST: Type.String({ minLength: 1, default: '127.0.0.1', description: 'address that this process listens on' }),
  HTTP_HOST: Type.Optional(Type.String({ minLength: 1, description: 'address that the API listens on; unset: HOST' })),
  HTTP_DRAIN_SECONDS: Type.Optional(
    Type.Integer({
      minimum: 0,
      maximum: 60,
      description: 'how long a stop is not ready and still answers; unset: 3 of an api process, else 0',
    }),
  ),
  HTTP_REQUESTS_PER_MINUTE: Type.Optional(
    Type.Integer({ minimum: 1, maximum: 100_000_000, description: 'of one caller, in this process; unset: no limit' }),
  ),
  HTTP_TRUSTED_PROXIES: Type.Optional(
    Type.String({
      minLength: 1,
      description: 'address,network/bits,… or loopback, linklocal, uniquelocal: their X-Forwarded-For names the caller',
    }),
  ),
  DATA_DIR: Type.String({ minLength: 1, default: './data', description: 'folder of the embedded log and the stores' }),
  KAFKA_BROKERS: Type.Optional(
    Type.String({ pattern: '^[^,\\s]+:\\d+(,[^,\\s]+:\\d+)*$', description: 'host:port,…; unset: the embedded log' }),
  ),
  KAFKA_SSL: Type.Enum(['true', 'false'], { default: 'false', description: 'TLS to Kafka' }),
  KAFKA_CA: Type.Optional(Type.String({ description: "PEM file of the authority behind Kafka's certificates" })),
  KAFKA_SASL_MECHANISM: Type.Optional(Type.Enum(['PLAIN', 'SCRAM-SHA-256', 'SCRAM-SHA-512'])),
  KAFKA_SASL_USERNAME: Type.Optional(Type.String()),
  KAFKA_SASL_PASSWORD: Secret('.', 'with KAFKA_SASL_MECHANISM'),
  KAFKA_REPLICATION: Type.Optional(
    Type.Integer({
      minimum: 1,
      maximum: 32,
      description: "copies of each topic partition; unset: the brokers' default",
    }),
  ),
  KAFKA_MIN_INSYNC_REPLICAS: Type.Optional(
    Type.Integer({
      minimum: 1,
      maximum: 32,
      description: "copies that must have a record; unset: the brokers' default",
    }),
  ),
  TOPIC_PREFIX: Type.String({ pattern: NAME, default: 'tidemark', description: 'first part of the topic names' }),
  GROUP: Type.String({ pattern: NAME, default: 'tidemark', description: 'consumer group of the processors' }),
  PARTITIONS: Type.Integer({
    minimum: 1,
    maximum: 1024,
    default: 8,
    description: 'partitions, when the log is created',
  }),
  STANDBYS: Type.Integer({ minimum: 0, maximum: 8, default: 1, description: 'warm copies of each partition' }),
  INSTANCE_ID: Type.Optional(
    Type.String({
      pattern: NAME,
      description: 'name of this processor, stable over restarts; unset on Kafka: one made once, and kept in DATA_DIR',
    }),
  ),
  ZONE: Type.Optional(Type.String({ pattern: NAME, description: 'host or rack: standbys go to another one' })),
  QUERY_PORT: Port(0, "a processor's own query endpoint"),
  HEALTH_PORT: Port(0, 'an ingest process: /livez, /readyz and /metrics'),
  CLUSTER_SECRET: Secret('^[\\x21-\\x7e]{16,256}$', '16 to 256 visible ASCII characters, the same in every process'),
  AUTH: Type.Optional(
    Type.Enum(['jwt', 'none'], { description: 'who the API answers; unset: anyone, on a loopback address alone' }),
  ),
  AUTH_SECRET: Secret('^[\\x21-\\x7e]{32,1024}$', '32 to 1,024 visible ASCII characters, the same for the issuer'),
  AUTH_JWKS: Type.Optional(Type.String({ minLength: 1, description: 'file or URL of a JWK set of public keys' })),
  AUTH_ALGORITHMS: Type.Optional(
    Type.String({
      pattern: `^${ALGORITHM}(,${ALGORITHM})*$`,
      description: 'algorithms of signatures, as in HS256 or RS256,ES256,EdDSA',
    }),
  ),
  AUTH_ISSUER: Type.String({ minLength: 1, default: 'tidemark', description: 'iss that a token must have' }),
  AUTH_AUDIENCE: Type.String({ minLength: 1, default: 'tidemark', description: 'aud that a token must have' }),
  AUTH_TOKEN: Secret('^[\\x21-\\x7e]{1,8192}$', 'token that an attached drill reads with'),
  LOG_LEVEL: Type.Enum(['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'], { default: 'info' }),
})

/** Variables whose value nobody may see. Each may be given as a file, by its name with _FILE. */
export const SECRETS: readonly string[] = Object.entries(Environment.properties)
  .filter(([, property]) => 'secret' in property)
  .map(([name]) => name)

export type Configuration = Readonly<Static<typeof Environment>>

/** Reads `environment`, applies the defaults, and freezes. Throws ConfigurationError that names the variable and the rule. */
export function readEnvironment(environment: Readonly<Record<string, string | undefined>>): Configuration {
  const given: Record<string, unknown> = {}
  for (const name of Object.keys(Environment.properties)) {
    const text = environment[name]
    // An empty variable is how a shell or a compose file says "not set".
    if (text !== undefined && text !== '')
      given[name] = /^\d{1,15}$/.test(text) && isInteger(name) ? Number(text) : text
  }
  const configuration = Value.Default(Environment, given)
  const error = Value.Errors(Environment, configuration)[0]
  if (error !== undefined) {
    const name = error.instancePath.slice(1)
    const property = Environment.properties[name as keyof typeof Environment.properties] as {
      description?: string
      secret?: boolean
    }
    const hint = property.description === undefined ? '' : ` (${property.description})`
    const value = property.secret === true ? '…' : JSON.stringify(given[name])
    throw refused(`${name}=${value}: ${error.message}${allowed(error.params)}${hint}`)
  }
  checkSecurity(configuration as Configuration)
  return Object.freeze(configuration as Static<typeof Environment>)
}

function checkSecurity(configuration: Configuration): void {
  const { KAFKA_SSL, KAFKA_CA, KAFKA_SASL_MECHANISM, KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD } = configuration
  if (KAFKA_CA !== undefined && KAFKA_SSL !== 'true') throw refused('KAFKA_CA is set: set KAFKA_SSL=true, or unset it')
  const credentials = [KAFKA_SASL_MECHANISM, KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD]
  if (credentials.some((part) => part === undefined) && credentials.some((part) => part !== undefined)) {
    throw refused('KAFKA_SASL_MECHANISM, KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD: set all three, or none')
  }
}

function refused(message: string): ConfigurationError {
  return new ConfigurationError('INVALID_CONFIGURATION', message)
}

function isInteger(name: string): boolean {
  return (Environment.properties[name as keyof typeof Environment.properties] as { type?: string }).type === 'integer'
}

function allowed(params: object): string {
  return 'allowedValues' in params ? ` ${(params.allowedValues as string[]).join(', ')}` : ''
}
