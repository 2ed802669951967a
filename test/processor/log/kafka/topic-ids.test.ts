import { expect, test } from 'vitest'
import { ConfigurationError, RetryableError } from '../../../../processor/contract/errors.ts'
import { TopicIds } from '../../../../processor/log/kafka/cluster.ts'

const NO_ID = 'AAAAAAAAAAAAAAAAAAAAAA'

const told = (id?: string, leaders = [1]) =>
  new Map(id === undefined ? [] : [['fleet.status', { id, leaders, replicas: 1 }]])

function held(id = 'first'): TopicIds {
  const ids = new TopicIds()
  ids.hold('fleet.status', id, 2)
  return ids
}

test('another id of a topic is believed when brokers keep withCommitHeader it, and says what to do', async () => {
  const ids = held()
  expect([0, 500, 1000].map((now) => ids.see(told('second'), now))).toEqual([undefined, undefined, undefined])
  expect(ids.doubt('fleet.status', told('second'))).toBeInstanceOf(RetryableError)
  const fault = ids.see(told('second'), 2000)
  expect(fault).toMatchObject({ code: 'LOG_MISMATCH', message: expect.stringMatching(/fleet\.status .*second.*first/) })
  await expect(ids.recreated).rejects.toBe(fault)
  expect(ids.doubt('fleet.status', told('first'))).toBeInstanceOf(ConfigurationError)
})

test('a broker that is behind, or does not know the topic for a moment, or knows no ids, is not believed', () => {
  const ids = held()
  for (const [now, id] of [
    [0, 'second'],
    [1500, 'first'],
    [1900, 'second'],
    [3000, 'second'],
    [3800, 'first'],
  ] as const) {
    expect(ids.see(told(id), now)).toBeUndefined()
  }
  for (let now = 4000; now < 20_000; now += 500) {
    expect(ids.see(told(), now)).toBeUndefined()
    expect(ids.see(told(NO_ID), now)).toBeUndefined()
  }
  expect(ids.doubt('fleet.status', told('first'))).toBeUndefined()
  expect(ids.doubt('fleet.status', told(NO_ID))).toBeUndefined()
  expect(ids.doubt('fleet.status', told())).toBeInstanceOf(RetryableError)
})

test('what is told of another id, and then nothing for a moment, is still told', () => {
  const ids = held()
  ids.see(told('second'), 0)
  ids.see(told(), 1000)
  expect(ids.see(told('third'), 2500)).toBeInstanceOf(ConfigurationError)
})

test('partitions that are added are told once, and not those of another topic', () => {
  const ids = held()
  expect(ids.grown(told())).toBeUndefined()
  expect(ids.grown(told('second', [1, 1, 1]))).toBeUndefined()
  expect(ids.grown(told('first', [1]))).toBeUndefined()
  expect(ids.grown(told('first', [1, 1]))).toBeUndefined()
  const message = expect.stringMatching(/fleet\.status has 3 partitions, and had 2 .* use another TOPIC_PREFIX/)
  expect(ids.grown(told('first', [1, 1, 1]))).toMatchObject({ code: 'LOG_MISMATCH', message })
  expect(ids.grown(told('first', [1, 1, 1]))).toBeUndefined()
})

test('topics without an id, or that nobody holds, are not looked at', () => {
  const ids = held(NO_ID)
  ids.see(told('second'), 0)
  expect(ids.see(told('second'), 5000)).toBeUndefined()
  expect(ids.doubt('fleet.status', told())).toBeUndefined()
  expect(held().doubt('fleet.dead-letters', told())).toBeUndefined()
})
