import { expect, test } from 'vitest'
import { readEnvironment } from '../../processor/contract/environment.ts'
import { ConfigurationError } from '../../processor/contract/errors.ts'

const SASL = { KAFKA_SASL_MECHANISM: 'PLAIN', KAFKA_SASL_USERNAME: 'tidemark', KAFKA_SASL_PASSWORD: 'hunter2' }

function refusal(environment: Record<string, string>): string {
  try {
    readEnvironment(environment)
  } catch (error) {
    expect(error).toBeInstanceOf(ConfigurationError)
    return (error as Error).message
  }
  throw new Error('it was not refused')
}

test('an empty variable is one that is not set', () => {
  expect(readEnvironment({ KAFKA_BROKERS: '', PARTITIONS: '', CLUSTER_SECRET: '' })).toEqual(readEnvironment({}))
})

test('a wrong value is named, a secret is not shown', () => {
  expect(refusal({ KAFKA_BROKERS: 'localhost' })).toMatch(/^KAFKA_BROKERS="localhost": /)
  const message = refusal({ CLUSTER_SECRET: 'too-short' })
  expect(message).toMatch(/^CLUSTER_SECRET=…: .*16 to 256/)
  expect(message).not.toContain('too-short')
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
