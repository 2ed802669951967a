import { readFile } from 'node:fs/promises'
import { hostAndPort } from '../contract/address.ts'
import { ConfigurationError, reasonOf } from '../contract/errors.ts'

/** A name of n letters may have floor(n / 4) - 1 mistakes, and two at most. */
const LETTERS_PER_MISTAKE = 4
const MAX_MISTAKES = 2

/** Finds the name that `given` is likely meant for, whatever its capitals. Undefined when none is near. */
function nearest(given: string, names: readonly string[]): string | undefined {
  const word = given.toUpperCase()
  const alike = names.filter((name) => Math.abs(name.length - word.length) <= MAX_MISTAKES)
  const near = alike.map((name) => ({
    name,
    mistakes: distance(word, name),
    allowed: Math.min(MAX_MISTAKES, Math.floor(name.length / LETTERS_PER_MISTAKE) - 1),
  }))
  const [first] = near
    .filter(({ mistakes, allowed }) => mistakes <= Math.max(0, allowed))
    .sort((a, b) => a.mistakes - b.mistakes)
  return first?.name
}

/** Counts letters that were left out, added, replaced, or swapped with their neighbour (optimal string alignment). */
function distance(a: string, b: string): number {
  const rows = [Array.from({ length: b.length + 1 }, (_, j) => j)]
  const at = (i: number, j: number): number => rows[i]?.[j] ?? Number.POSITIVE_INFINITY
  for (let i = 1; i <= a.length; i++) {
    rows.push([i])
    for (let j = 1; j <= b.length; j++) {
      const replaced = at(i - 1, j - 1) + (a[i - 1] === b[j - 1] ? 0 : 1)
      const isSwap = a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]
      const swapped = isSwap ? at(i - 2, j - 2) + 1 : Number.POSITIVE_INFINITY
      rows[i]?.push(Math.min(at(i - 1, j) + 1, at(i, j - 1) + 1, replaced, swapped))
    }
  }
  return at(a.length, b.length)
}

/** This schema is our own: every role reads the environment first, and a schema library would load 680 modules. */
interface Variable<T> {
  readonly read: (text: string) => { readonly value: T } | { readonly rule: string }
  readonly unset: T
  readonly description: string | undefined
  /** Errors and log lines never show its value. */
  readonly secret: boolean
}

interface Words<D> {
  readonly default?: D
  readonly description?: string
}

/** An integer of up to 15 digits is exact as a number. */
const DIGITS = /^\d{1,15}$/

function integer<D extends number | undefined = undefined>(
  minimum: number,
  maximum: number,
  words: Words<D> = {},
): Variable<number | D> {
  return variableOf(words, (digits) => {
    const value = DIGITS.test(digits) ? Number(digits) : Number.NaN
    return value >= minimum && value <= maximum
      ? { value }
      : { rule: `must be an integer from ${minimum} to ${maximum}` }
  })
}

function text<D extends string | undefined = undefined>(
  words: Words<D> & { readonly pattern?: RegExp } = {},
): Variable<string | D> {
  const { pattern } = words
  return variableOf(words, (value) =>
    pattern === undefined || pattern.test(value) ? { value } : { rule: `must match ${pattern.source}` },
  )
}

function secret(pattern: RegExp, description: string): Variable<string | undefined> {
  return { ...text({ pattern, description }), secret: true }
}

function choice<const T extends string, D extends T | undefined = undefined>(
  of: readonly T[],
  words: Words<D> = {},
): Variable<T | D> {
  return variableOf(words, (given) => {
    const value = of.find((one) => one === given)
    return value === undefined ? { rule: `must be one of ${of.join(', ')}` } : { value }
  })
}

function variableOf<T, D>({ default: unset, description }: Words<D>, read: Variable<T>['read']): Variable<T | D> {
  return { read, unset: unset as D, description, secret: false }
}

/**
 * Tells why nobody can have meant `value`, whatever the variable; undefined when it is fine. Files of variables are
 * read in many ways, and a folder whose name ends with a carriage return would be made and stay empty.
 */
function mangled(value: string, hidden = false): string | undefined {
  if (/\p{Cc}/u.test(value)) return 'has a control character; where it is \\r at the end, its file has CRLF line ends'
  // A secret was chosen by another program, quotes and spaces included.
  if (hidden) return undefined
  if (/^(["']).*\1$/.test(value)) return 'has quotes around it, which some readers of files (docker --env-file) keep'
  if (value !== value.trim()) return 'has white space at an end'
  return undefined
}

const port = (value: number, description: string) =>
  integer(0, 65_535, { default: value, description: `${description}; 0: any free port` })

/** A port that may be turned off. */
const portOrOff = (value: number, description: string) =>
  variableOf<number | 'off', number>({ default: value, description }, (given) => {
    if (given === 'off') return { value: given }
    const found = DIGITS.test(given) ? Number(given) : Number.NaN
    return found <= 65_535 ? { value: found } : { rule: 'must be off, or an integer from 0 to 65535' }
  })

/** The algorithms leave out `none`, which signs nothing. */
const ALGORITHM = '(HS256|HS384|HS512|RS256|RS384|RS512|PS256|PS384|PS512|ES256|ES384|ES512|EdDSA)'

export const DEFAULT_PARTITIONS = 8

const NAME = /^[A-Za-z0-9._-]{1,100}$/

/**
 * These entries of DATA_DIR stand beside the stores: the embedded log, the data of `npm run kafka`, and the file with
 * the name made for a processor.
 */
export const LOG_FOLDER = 'log'
export const KAFKA_FOLDER = 'kafka'
export const INSTANCE_FILE = 'instance-id'

/**
 * A processor keeps its stores in a folder of its name in DATA_DIR, and wipes that folder when they are damaged, so no
 * other entry may have the name. Some file systems ignore case.
 */
export const INSTANCE_NAME = new RegExp(
  `^(?!\\.+$)(?!(${LOG_FOLDER}|${KAFKA_FOLDER}|${INSTANCE_FILE})$)${NAME.source.slice(1)}`,
  'i',
)

const ENVIRONMENT = {
  MQTT_PORT: portOrOff(1883, 'MQTT without TLS, over TCP and over WebSocket; 0: any free port'),
  HTTP_PORT: port(8080, 'the API'),
  HOST: text({ default: '127.0.0.1', description: 'address that this process listens on' }),
  HTTP_HOST: text({ description: 'address that the API listens on; unset: HOST' }),
  HTTP_TLS_CERT: text({ description: 'PEM file of the certificate of the API, with its chain; unset: plain HTTP' }),
  HTTP_TLS_KEY: text({ description: 'PEM file of its private key' }),
  HTTP_DRAIN_SECONDS: integer(0, 60, {
    description: 'how long a stop is not ready and still answers; unset: 3 of an api process, else 0',
  }),
  HTTP_KEEP_ALIVE_SECONDS: integer(1, 3_600, {
    description:
      'how long the API keeps a connection without a request, longer than a balancer in front of it; unset: 75',
  }),
  HTTP_REQUESTS_PER_MINUTE: integer(1, 100_000_000, { description: 'of one caller, in this process; unset: no limit' }),
  HTTP_TRUSTED_PROXIES: text({
    description: 'address,network/bits,… or loopback, linklocal, uniquelocal: their X-Forwarded-For names the caller',
  }),
  DATA_DIR: text({ default: './data', description: 'folder of the embedded log and the stores' }),
  KAFKA_BROKERS: text({
    pattern: /^[^,\s]+:\d+(,[^,\s]+:\d+)*$/,
    description: 'host:port,…; unset: the embedded log',
  }),
  KAFKA_SSL: choice(['true', 'false'], { default: 'false', description: 'TLS to Kafka' }),
  KAFKA_CA: text({ description: "PEM file of the authority behind Kafka's certificates" }),
  KAFKA_SASL_MECHANISM: choice(['PLAIN', 'SCRAM-SHA-256', 'SCRAM-SHA-512']),
  KAFKA_SASL_USERNAME: text(),
  KAFKA_SASL_PASSWORD: secret(/./, 'with KAFKA_SASL_MECHANISM'),
  KAFKA_REPLICATION: integer(1, 32, { description: "copies of each topic partition; unset: the brokers' default" }),
  KAFKA_MIN_INSYNC_REPLICAS: integer(1, 32, {
    description: "copies that must have a record; unset: the brokers' default",
  }),
  TOPIC_PREFIX: text({ pattern: NAME, default: 'tidemark', description: 'first part of the topic names' }),
  GROUP: text({ pattern: NAME, default: 'tidemark', description: 'consumer group of the processors' }),
  PARTITIONS: integer(1, 1024, { default: DEFAULT_PARTITIONS, description: 'partitions, when the log is created' }),
  STANDBYS: integer(0, 8, { default: 1, description: 'warm copies of each partition' }),
  INSTANCE_ID: text({
    pattern: INSTANCE_NAME,
    description: 'name of this processor, stable over restarts; unset on Kafka: one made once, and kept in DATA_DIR',
  }),
  ZONE: text({ pattern: NAME, description: 'host or rack: standbys go to another one' }),
  QUERY_PORT: port(0, "a processor's own query endpoint"),
  HEALTH_PORT: port(0, 'an ingest process: /livez, /readyz and /metrics'),
  CLUSTER_SECRET: secret(/^[\x21-\x7e]{16,256}$/, '16 to 256 visible ASCII characters, the same in every process'),
  AUTH: choice(['jwt', 'none'], { description: 'who the API answers; unset: anyone, on a loopback address alone' }),
  AUTH_SECRET: secret(/^[\x21-\x7e]{32,1024}$/, '32 to 1,024 visible ASCII characters, the same for the issuer'),
  AUTH_JWKS: text({ description: 'file or URL of a JWK set of public keys' }),
  AUTH_ALGORITHMS: text({
    pattern: new RegExp(`^${ALGORITHM}(,${ALGORITHM})*$`),
    description: 'algorithms of signatures, as in HS256 or RS256,ES256,EdDSA',
  }),
  AUTH_ISSUER: text({ default: 'tidemark', description: 'iss that a token must have' }),
  AUTH_AUDIENCE: text({ default: 'tidemark', description: 'aud that a token must have' }),
  AUTH_MAX_TOKEN_HOURS: integer(1, 87_600, { default: 720, description: 'how long a token may be good' }),
  AUTH_TOKEN: secret(/^[\x21-\x7e]{1,8192}$/, 'token that an attached drill reads with'),
  MQTT_AUTH: text({
    pattern: /^(tls|password|jwt|none)(,(tls|password|jwt|none))*$/,
    description: 'how clients prove who they are: tls, password, jwt or several; unset: not at all, on loopback alone',
  }),
  MQTT_TLS_PORT: port(8883, 'MQTT with TLS, where MQTT_TLS_CERT is set'),
  MQTT_TLS_CERT: text({ description: 'PEM file of the certificate of MQTT, with its chain' }),
  MQTT_TLS_KEY: text({ description: 'PEM file of its private key' }),
  MQTT_TLS_CA: text({ description: "PEM file of the authority of the clients' certificates" }),
  MQTT_TLS_CRL: text({ description: 'PEM file of the certificates that were revoked' }),
  MQTT_TLS_NAME: text({ default: 'cn:{id}', description: 'where in a certificate the name of the client stands' }),
  MQTT_PASSWORDS: text({ description: 'file of names and hashes of passwords' }),
  MQTT_ACL: text({ description: 'file of rights, as in Mosquitto' }),
  MQTT_AUDIENCE: text({ default: 'tidemark-mqtt', description: 'aud that a token of an MQTT client must have' }),
  MQTT_ORIGINS: text({ description: 'origins of web pages that may open a WebSocket, such as https://fleet.example' }),
  MQTT_CONNECTIONS_PER_ADDRESS: integer(1, 1_000_000, { description: 'open MQTT connections; unset: 10,000' }),
  MQTT_ATTEMPTS_PER_ADDRESS: integer(1, 1_000_000, { description: 'MQTT connections begun in a second; unset: 1,000' }),
  MQTT_CONNECTIONS_PER_NAME: integer(1, 1_000_000, { description: 'of one client with MQTT_AUTH; unset: 1,000' }),
  MQTT_MESSAGES_PER_NAME: integer(1, 1_000_000, { description: 'in a second, with MQTT_AUTH; unset: 20,000' }),
  MQTT_NEW_DEVICES_PER_NAME: integer(1, 1_000_000, { description: 'in a second, with MQTT_AUTH; unset: 1,000' }),
  MQTT_KEEPALIVE_SECONDS: integer(1, 43_690, { description: 'of clients that ask for none; unset: 3,600' }),
  AUDIT_LOG: text({
    description: 'file that says who came, was refused, and changed what; log: marked lines of the log',
  }),
  LOG_LEVEL: choice(['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'], { default: 'info' }),
}

type Environment = typeof ENVIRONMENT

const VARIABLES: readonly (readonly [string, Variable<string | number | undefined>])[] = Object.entries(ENVIRONMENT)

/** Nobody may see the values of these variables. Each may be given as a file, by its name with _FILE. */
export const SECRETS: readonly string[] = VARIABLES.filter(([, variable]) => variable.secret).map(([name]) => name)

/**
 * Finds variables that misspell one that is read, each with the right name. With KAFKA_BROKERS misspelt a process runs
 * on a log of its own; with CLUSTER_SECRET misspelt anyone may ask.
 */
export function misspelt(environment: Readonly<Record<string, string | undefined>>): (readonly [string, string])[] {
  const names = [...VARIABLES.map(([name]) => name), ...SECRETS.map((name) => `${name}_FILE`)]
  return Object.keys(environment).flatMap((given) => {
    const meant = names.includes(given) || environment[given] === '' ? undefined : nearest(given, names)
    return meant === undefined ? [] : [[given, meant] as const]
  })
}

export type Configuration = {
  readonly [Name in keyof Environment]: Environment[Name] extends Variable<infer Value> ? Value : never
}

/** Throws ConfigurationError that names the variable and the rule. */
export function readEnvironment(environment: Readonly<Record<string, string | undefined>>): Configuration {
  const entries = VARIABLES.map(([name, variable]) => [name, valueOf(name, variable, environment[name])] as const)
  const configuration = Object.fromEntries(entries) as Configuration
  checkBrokers(configuration)
  checkSecurity(configuration)
  checkReplication(configuration)
  return Object.freeze(configuration)
}

function valueOf<T>(name: string, variable: Variable<T>, given: string | undefined): T {
  const { read, unset, description, secret: hidden } = variable
  // Shells and compose files say "not set" with an empty variable.
  if (given === undefined || given === '') return unset
  const shown = `${name}=${hidden ? '…' : JSON.stringify(given)}`
  const fault = mangled(given, hidden)
  if (fault !== undefined) throw refused(`${shown}: ${fault}`)
  const found = read(given)
  if ('value' in found) return found.value
  const hint = description === undefined ? '' : ` (${description})`
  throw refused(`${shown}: ${found.rule}${hint}`)
}

function checkBrokers({ KAFKA_BROKERS = '' }: Configuration): void {
  const wrong = KAFKA_BROKERS.split(',').find((broker) => hostAndPort(broker).port > 65_535)
  if (wrong !== undefined) throw refused(`KAFKA_BROKERS names ${wrong}: a port is at most 65535`)
}

function checkSecurity(configuration: Configuration): void {
  const { KAFKA_SSL, KAFKA_CA, KAFKA_SASL_MECHANISM, KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD } = configuration
  if (KAFKA_CA !== undefined && KAFKA_SSL !== 'true') throw refused('KAFKA_CA is set: set KAFKA_SSL=true, or unset it')
  const credentials = [KAFKA_SASL_MECHANISM, KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD]
  if (credentials.some((part) => part === undefined) && credentials.some((part) => part !== undefined)) {
    throw refused('KAFKA_SASL_MECHANISM, KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD: set all three, or none')
  }
}

function checkReplication({ KAFKA_REPLICATION, KAFKA_MIN_INSYNC_REPLICAS }: Configuration): void {
  if (KAFKA_REPLICATION === undefined || KAFKA_MIN_INSYNC_REPLICAS === undefined) return
  if (KAFKA_MIN_INSYNC_REPLICAS > KAFKA_REPLICATION) {
    throw refused(
      `KAFKA_MIN_INSYNC_REPLICAS=${KAFKA_MIN_INSYNC_REPLICAS}: must be at most KAFKA_REPLICATION=${KAFKA_REPLICATION}, or no record could be written`,
    )
  }
}

function refused(message: string): ConfigurationError {
  return new ConfigurationError('INVALID_CONFIGURATION', message)
}

type Variables = Readonly<Record<string, string | undefined>>

/**
 * Adds the secrets whose files `<secret>_FILE` names, as container engines pass them. Drops a newline at the end.
 * Rejects with ConfigurationError when a file cannot be read, or the variable is set as well.
 */
export async function withSecretFiles(environment: Variables): Promise<Variables> {
  const read: Record<string, string> = {}
  for (const name of SECRETS) {
    const variable = `${name}_FILE`
    const file = environment[variable]
    if (file === undefined || file === '') continue
    const fault = mangled(file)
    if (fault !== undefined) {
      throw new ConfigurationError('INVALID_CONFIGURATION', `${variable}=${JSON.stringify(file)}: ${fault}`)
    }
    if (environment[name] !== undefined && environment[name] !== '') {
      throw new ConfigurationError('INVALID_CONFIGURATION', `${name} and ${variable} are both set: unset one of them`)
    }
    read[name] = (await contentsOf(variable, file)).replace(/\r?\n$/, '')
    if (read[name] === '') {
      throw new ConfigurationError('INVALID_CONFIGURATION', `${variable}=${file}: the file is empty`)
    }
  }
  return { ...environment, ...read }
}

export async function contentsOf(variable: string, file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8')
  } catch (error) {
    const message = `${variable}=${file} cannot be read: ${reasonOf(error)}`
    throw new ConfigurationError('INVALID_CONFIGURATION', message, error)
  }
}
