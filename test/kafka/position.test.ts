import { describe, expect, test } from 'vitest'
import type { Claim } from '../../processor/log/log.ts'
import { read } from '../contract/log-member.ts'
import { record, text } from '../contract/log-records.ts'
import { holderOf, kafkaByHand, offer, openByHand, type World, withClaim, write } from './by-hand.ts'
import { kafkaMissing } from './kafka.ts'
import { kafkaTool } from './tools.ts'

/** What a claim finds when the group's offset is not that of the last commit. Every world begins with `a`, next 1. */
describe.skipIf(kafkaMissing !== undefined)('the offset that a claim starts at', { timeout: 60_000 }, () => {
  const kafka = kafkaByHand()

  const groups = (args: readonly string[]) =>
    kafkaTool(kafka().brokers, 'org.apache.kafka.tools.consumer.group.ConsumerGroupCommand', args)

  test('is that of the last commit when the coordinator gives an older one', async () => {
    const world = await openByHand(kafka(), 9)
    await withClaim(world.log, commit('b', 2))
    await withClaim(world.log, commit('c', 3))
    const holder = await holderOf(world.cluster, world.prefix)
    await offer({ ...world, holder }, 1, 1, false)
    expect(await next(world)).toEqual({ start: { input: 3, changelogEnd: 5 }, again: 9, status: 'a b c next' })
  })

  test('is that of the last commit when what follows it was aborted', async () => {
    const world = await openByHand(kafka(), 9)
    await withClaim(world.log, commit('b', 2))
    const holder = await holderOf(world.cluster, world.prefix)
    await offer({ ...world, holder }, 1, 1, false)
    await write({ ...world, holder }, 'status', 'aborted')
    expect(await next(world)).toEqual({ start: { input: 2, changelogEnd: 3 }, again: 9, status: 'a b next' })
  })

  test('is that of the last commit when the group has forgotten everything', async () => {
    const world = await openByHand(kafka(), 9)
    await withClaim(world.log, commit('b', 2))
    await groups(['--delete', '--group', world.prefix])
    expect(await next(world)).toEqual({ start: { input: 2, changelogEnd: 3 }, again: 9, status: 'a b next' })
  })

  test('is that which a person set with a tool', async () => {
    const world = await openByHand(kafka(), 9)
    await withClaim(world.log, commit('b', 2))
    const to = ['--reset-offsets', '--to-offset', '0', '--topic', world.names.telemetry, '--execute']
    await groups(['--group', world.prefix, ...to])
    expect((await next(world)).start).toEqual({ input: 0, changelogEnd: 4 })
  })

  test('goes without the position that was committed with it once a person set it anew', async () => {
    const world = await openByHand(kafka(), 9)
    await withClaim(world.log, commit('b', 2))
    const to = ['--reset-offsets', '--to-current', '--topic', `${world.names.telemetry}:0`, '--execute']
    await groups(['--group', world.prefix, ...to])
    expect((await next(world)).start).toEqual({ input: 2, changelogEnd: 4 })
  })
})

/** Where the next claim starts, and what the changelog holds after one more commit. */
async function next({ log, network }: World) {
  const start = await withClaim(log, async (claim) => {
    await claim.commit({ changelog: [record('key', 'next')], deadLetters: [], next: 9 })
    return claim.start
  })
  const again = await withClaim(log, (claim) => Promise.resolve(claim.start.input))
  const { end } = await log.bounds({ topic: 'status', index: 0 })
  const status = (await read(log, 'status', 0, 0, end)).map(text).join(' ')
  await log[Symbol.asyncDispose]()
  network.close()
  return { start, again, status }
}

function commit(value: string, to: number) {
  return (claim: Claim) => claim.commit({ changelog: [record('key', value)], deadLetters: [], next: to })
}
