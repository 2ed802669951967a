import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { ConfigurationError } from '../../../processor/contract/errors.ts'
import { misspelt, readEnvironment, SECRETS } from '../../../processor/runtime/environment.ts'

const SASL = { KAFKA_SASL_MECHANISM: 'PLAIN', KAFKA_SASL_USERNAME: 'tidemark', KAFKA_SASL_PASSWORD: 'hunter2' }

function refusal(environment: Record<string, string>): string {
  const message = fault(environment)
  if (message === '') throw new Error('it was not refused')
  return message
}

/** Empty when `environment` is fine. */
function fault(environment: Record<string, string>): string {
  try {
    readEnvironment(environment)
    return ''
  } catch (error) {
    expect(error).toBeInstanceOf(ConfigurationError)
    return (error as Error).message
  }
}

test('an empty variable is one that is not set', () => {
  expect(readEnvironment({ KAFKA_BROKERS: '', PARTITIONS: '', CLUSTER_SECRET: '' })).toEqual(readEnvironment({}))
})

test('a wrong value is named, a secret is not shown', () => {
  expect(refusal({ KAFKA_BROKERS: 'localhost' })).toMatch(/^KAFKA_BROKERS="localhost": /)
  expect(refusal({ KAFKA_BROKERS: 'a:9092,[::1]:65536' })).toBe(
    'KAFKA_BROKERS names [::1]:65536: a port is at most 65535',
  )
  const message = refusal({ CLUSTER_SECRET: 'too-short' })
  expect(message).toMatch(/^CLUSTER_SECRET=…: .*16 to 256/)
  expect(message).not.toContain('too-short')
})

test('what a file of variables made of a value is refused, and the reason told', () => {
  const names = ['DATA_DIR', 'AUTH_ISSUER', 'KAFKA_SASL_USERNAME', 'HTTP_PORT', 'LOG_LEVEL']
  for (const name of names) {
    for (const [value, why] of [
      ['/data\r', 'control character.*CRLF'],
      ['/da\0ta', 'control character'],
      ['"/data"', 'quotes around it'],
      ["'/data'", 'quotes around it'],
      [' /data', 'white space at an end'],
      ['/data\u00a0', 'white space at an end'],
    ] as const) {
      const message = refusal({ [name]: value })
      expect(message.startsWith(`${name}=${JSON.stringify(value)}: has `), message).toBe(true)
      expect(message).toMatch(new RegExp(why))
    }
  }
  expect(refusal({ KAFKA_SASL_PASSWORD: 'a\r' })).toMatch(/^KAFKA_SASL_PASSWORD=…: has a control character/)
  for (const KAFKA_SASL_PASSWORD of ['"a"', ' a ']) {
    const given = { KAFKA_SASL_MECHANISM: 'PLAIN', KAFKA_SASL_USERNAME: 'a', KAFKA_SASL_PASSWORD }
    expect(readEnvironment(given)).toMatchObject({ KAFKA_SASL_PASSWORD })
  }
  for (const DATA_DIR of ['/my "data"', `it's`, '"', '/données 1']) {
    expect(readEnvironment({ DATA_DIR })).toMatchObject({ DATA_DIR })
  }
})

test('numbers are numbers within their bounds, names stay text, and a choice is among what there is', () => {
  const given = { PARTITIONS: '1024', QUERY_PORT: '0', INSTANCE_ID: '42', LOG_LEVEL: 'debug' }
  const configuration = readEnvironment(given)
  expect(configuration).toMatchObject({ PARTITIONS: 1024, QUERY_PORT: 0, INSTANCE_ID: '42', LOG_LEVEL: 'debug' })
  expect(configuration).toMatchObject({ STANDBYS: 1, MQTT_PORT: 1883, HTTP_DRAIN_SECONDS: undefined })
  for (const PARTITIONS of ['0', '1025', '2.5', '-1', '1e2', '99999999999999999999', 'many']) {
    expect(refusal({ PARTITIONS })).toMatch(`PARTITIONS="${PARTITIONS}": must be an integer from 1 to 1024`)
  }
  expect(refusal({ LOG_LEVEL: 'loud' })).toMatch('trace, debug, info')
  expect(refusal({ INSTANCE_ID: 'a b' })).toMatch('INSTANCE_ID="a b"')
})

test('a name whose folder would be DATA_DIR itself, one above it, or what else is in it is refused', () => {
  for (const INSTANCE_ID of ['.', '..', '...', 'log', 'LOG', 'kafka', 'instance-id', 'a/b']) {
    expect(refusal({ INSTANCE_ID })).toMatch(`INSTANCE_ID="${INSTANCE_ID}"`)
  }
  for (const INSTANCE_ID of ['.a', 'a.b', 'log-2', 'kafka-2', 'x'.repeat(100)]) {
    expect(readEnvironment({ INSTANCE_ID })).toMatchObject({ INSTANCE_ID })
  }
})

test('settings of security that make no whole are refused', () => {
  expect(readEnvironment({ ...SASL, KAFKA_SSL: 'true', KAFKA_CA: '/ca.pem' })).toMatchObject(SASL)
  expect(refusal({ KAFKA_CA: '/ca.pem' })).toMatch('KAFKA_SSL')
  expect(refusal({ KAFKA_SSL: 'yes' })).toMatch('KAFKA_SSL')
  for (const name of Object.keys(SASL)) {
    const message = refusal({ ...SASL, [name]: '' })
    expect(message).toMatch(name)
    expect(message).not.toContain('hunter2')
  }
})

test('more copies to be in sync than there are copies are refused', () => {
  const given = { KAFKA_REPLICATION: '2', KAFKA_MIN_INSYNC_REPLICAS: '2' }
  expect(readEnvironment(given)).toMatchObject({ KAFKA_REPLICATION: 2, KAFKA_MIN_INSYNC_REPLICAS: 2 })
  const message = refusal({ ...given, KAFKA_REPLICATION: '1' })
  expect(message).toMatch('KAFKA_MIN_INSYNC_REPLICAS=2: must be at most KAFKA_REPLICATION=1')
})

test('docs/configuration.md has each variable once, with its default and its values, and the file of each secret', async () => {
  const page = await readFile(join(import.meta.dirname, '../../../docs/configuration.md'), 'utf8')
  const rows = [...page.matchAll(/^\| (`[A-Z_]+`) \| ([^|]+) \| ([^|]+) \|/gm)]
  const told = rows.map(([, name, unset]) => `${name}: ${unset}`)
  const read = Object.entries(readEnvironment({}))
  const defaults = read.map(([name, value]) => `\`${name}\`: ${value === undefined ? 'unset' : `\`${value}\``}`)
  expect(told.sort()).toEqual(defaults.sort())
  let bounded = 0
  for (const [, name = '', , values] of rows) {
    const rule = fault({ [name.slice(1, -1)]: '☃' })
    const [, range, choices] = /must be (?:an integer from (.+?)|one of (.+?))(?: \(.*)?$/.exec(rule) ?? []
    const allowed = range ?? choices?.replaceAll(/[^, ]+/g, '`$&`')
    if (allowed === undefined) continue
    expect(values, name).toBe(allowed)
    bounded++
  }
  expect(bounded).toBeGreaterThan(10)
  for (const name of SECRETS) expect(page).toContain(`\`${name}_FILE\``)
})

test.each([
  ['KAFKA_BROKER', 'KAFKA_BROKERS'],
  ['kafka_brokers', 'KAFKA_BROKERS'],
  ['CLUSTER_SECERT', 'CLUSTER_SECRET'],
  ['CLUSTER_SECRETS_FILE', 'CLUSTER_SECRET_FILE'],
  ['HTTP_REQUEST_PER_MINUTE', 'HTTP_REQUESTS_PER_MINUTE'],
  ['STANDBY', 'STANDBYS'],
  ['PARTITION', 'PARTITIONS'],
  ['DATADIR', 'DATA_DIR'],
  ['group', 'GROUP'],
])('%s, which nobody reads, is told to be nearly %s', (given, meant) => {
  expect(misspelt({ [given]: 'x' })).toEqual([[given, meant]])
  expect(misspelt({ [given]: '' })).toEqual([])
})

test('what is read, or is not nearly what is read, is not told to be misspelt', () => {
  const others = ['HOSTNAME', 'HOSTS', 'PORT', 'GROUPS', 'ZONES', 'AUTHS', 'KAFKA_HEAP_OPTS', 'NODE_ENV', 'LOG_FILE']
  const secrets = SECRETS.map((name) => `${name}_FILE`)
  const all = [...Object.keys(readEnvironment({})), ...secrets, ...others]
  expect(misspelt(Object.fromEntries(all.map((name) => [name, 'x'])))).toEqual([])
})
