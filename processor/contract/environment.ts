import { type Static, Type } from 'typebox'
import { Value } from 'typebox/value'
import { ConfigurationError } from './errors.ts'

const Port = (value: number, description: string) =>
  Type.Integer({ minimum: 0, maximum: 65_535, default: value, description: `${description}; 0: any free port` })

const NAME = '^[A-Za-z0-9._-]{1,100}$'

/** Every environment variable that Tidemark reads. */
const Environment = Type.Object({
  MQTT_PORT: Port(1883, 'MQTT over TCP and over WebSocket'),
  HTTP_PORT: Port(8080, 'the API'),
  HOST: Type.String({ minLength: 1, default: '127.0.0.1', description: 'address that MQTT and HTTP listen on' }),
  DATA_DIR: Type.String({ minLength: 1, default: './data', description: 'folder of the embedded log and the stores' }),
  KAFKA_BROKERS: Type.Optional(
    Type.String({ pattern: '^[^,\\s]+:\\d+(,[^,\\s]+:\\d+)*$', description: 'host:port,…; unset: the embedded log' }),
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
  INSTANCE_ID: Type.String({
    pattern: NAME,
    default: 'tidemark-1',
    description: 'name of this process, stable over restarts',
  }),
  QUERY_PORT: Port(0, "a processor's own query endpoint"),
  LOG_LEVEL: Type.Enum(['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'], { default: 'info' }),
})

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
    const property = Environment.properties[name as keyof typeof Environment.properties] as { description?: string }
    const hint = property.description === undefined ? '' : ` (${property.description})`
    throw new ConfigurationError(
      'INVALID_CONFIGURATION',
      `${name}=${JSON.stringify(given[name])}: ${error.message}${allowed(error.params)}${hint}`,
    )
  }
  return Object.freeze(configuration as Static<typeof Environment>)
}

function isInteger(name: string): boolean {
  return (Environment.properties[name as keyof typeof Environment.properties] as { type?: string }).type === 'integer'
}

function allowed(params: object): string {
  return 'allowedValues' in params ? ` ${(params.allowedValues as string[]).join(', ')}` : ''
}
