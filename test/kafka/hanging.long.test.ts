import { describe, expect, test } from 'vitest'
import { TRANSACTION_COORDINATOR } from '../../processor/log/kafka/cluster.ts'
import { read } from '../contract/log-member.ts'
import { record, text } from '../contract/log-records.ts'
import { kafkaByHand, LANE, offer, openByHand, type World, withClaim, write } from './by-hand.ts'
import { kafkaMissing } from './kafka.ts'

/**
 * What a broker leaves behind that calls a transaction complete and has not written its markers: with the check of
 * KIP-890 off, the same can be written by hand.
 */
describe.skipIf(kafkaMissing !== undefined)('a transaction that a broker left open', { timeout: 60_000 }, () => {
  const kafka = kafkaByHand()

  test('whole, in the changelog and in the offsets: is committed', async () => {
    const world = await openByHand(kafka(), 9)
    const end = await write(world, 'status', 'b')
    await write(world, 'dead-letters', 'x')
    await offer(world, 2, end, true)
    expect(await outcome(world)).toEqual({ input: 2, status: 'a b next', deadLetters: 'x next', again: 9 })
  })

  test('only in the changelog, before any offset: is aborted', async () => {
    const world = await openByHand(kafka(), 9)
    await write(world, 'status', 'b')
    await write(world, 'dead-letters', 'x')
    expect(await outcome(world)).toEqual({ input: 1, status: 'a next', deadLetters: 'next', again: 9 })
  })

  test('only in the changelog, while its offset is committed: is committed', async () => {
    const world = await openByHand(kafka(), 9)
    const end = await write(world, 'status', 'b')
    await offer(world, 2, end, false)
    expect(await outcome(world)).toEqual({ input: 2, status: 'a b next', deadLetters: 'next', again: 9 })
  })

  test('only in the offsets, with nothing new in the changelog: is aborted', async () => {
    const world = await openByHand(kafka(), 9)
    await offer(world, 2, 99, true)
    expect(await outcome(world)).toEqual({ input: 1, status: 'a next', deadLetters: 'next', again: 9 })
  })

  test('only in the offsets, while the changelog has what belongs to them: is committed', async () => {
    const world = await openByHand(kafka(), 9)
    const { cluster, prefix, holder, names } = world
    const { requests } = await cluster.coordinator(LANE, TRANSACTION_COORDINATOR, `${prefix}-0`)
    const transaction = { transactionalId: `${prefix}-0`, producerId: holder.id, producerEpoch: holder.epoch }
    await requests.addPartitionsToTxn({ ...transaction, topics: [{ topic: names.status, partitions: [0] }] })
    const end = await write(world, 'status', 'b')
    await offer(world, 2, end, true)
    await requests.endTxn({ ...transaction, transactionResult: true })
    expect(await outcome(world)).toEqual({ input: 2, status: 'a b next', deadLetters: 'next', again: 9 })
  })

  test('only in the dead letters: is committed', async () => {
    const world = await openByHand(kafka(), 9)
    await write(world, 'dead-letters', 'x')
    expect(await outcome(world)).toEqual({ input: 1, status: 'a next', deadLetters: 'x next', again: 9 })
  })
})

/** What the next claim finds, and what a reader of the changelog and of the dead letters sees after its commit. */
async function outcome({ log, network }: World) {
  const start = await withClaim(log, async (claim) => {
    await claim.commit({ changelog: [record('key', 'next')], deadLetters: [record('key', 'next')], next: 9 })
    return claim.start
  })
  // A commit resolves before its markers are written; the next claim waits for them.
  const again = await withClaim(log, (claim) => Promise.resolve(claim.start.input))
  const values = []
  for (const topic of ['status', 'dead-letters'] as const) {
    const { end } = await log.bounds({ topic, index: 0 })
    values.push((await read(log, topic, 0, 0, end)).map(text).join(' '))
  }
  await log[Symbol.asyncDispose]()
  network.close()
  return { input: start.input, status: values[0], deadLetters: values[1], again }
}
