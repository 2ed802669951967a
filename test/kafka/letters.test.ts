import { afterEach, describe, expect, test } from 'vitest'
import { deadLetter } from '../../processor/contract/dead-letter.ts'
import type { NewRecord } from '../../processor/log/log.ts'
import { letterReader } from '../../processor/query/log-readers.ts'
import { type Answered, ask } from '../api/conformance.ts'
import { type Stage, stage } from '../api/stage.ts'
import { beginTransaction, kafkaByHand, openByHand, type World, withClaim } from './by-hand.ts'
import { kafkaMissing } from './kafka.ts'

const ROUTE = '/v1/dead-letters'
const NOW = Date.now()

/** As a processor makes it of the record at `offset`. */
function letter(payload: string, offset: number): NewRecord {
  const original = { key: 'truck-1', value: Buffer.from(payload), timestamp: NOW }
  return deadLetter('not-json', original, { partition: 0, offset })
}

const shown = ({ body }: Answered) =>
  body.items.map((item) => {
    const { offset, payload } = item as unknown as { offset: number; payload: { content: string } }
    return `${offset} ${payload.content}`
  })

describe.skipIf(kafkaMissing !== undefined)('dead letters of Kafka', { timeout: 60_000 }, () => {
  const kafka = kafkaByHand()
  let on: Stage | undefined
  let world: World | undefined
  afterEach(async () => {
    await on?.api.close()
    await world?.log[Symbol.asyncDispose]()
    world?.network.close()
  })

  test('are those that are committed, once each, whatever markers stand between them', async () => {
    world = await openByHand(kafka(), 9)
    const { log } = world
    on = await stage({ letters: letterReader(log) })
    await log.append('dead-letters', [letter('a', 0)])
    await withClaim(log, async (claim) => {
      await claim.commit({ changelog: [], deadLetters: [letter('b', 1), letter('c', 2)], next: 3 })
      await claim.commit({ changelog: [], deadLetters: [letter('d', 3)], next: 4 })
    })
    // A commit resolves before its markers are written; the next claim waits for them.
    await withClaim(log, () => Promise.resolve())
    const pages: Answered[] = [await ask(on.api, `${ROUTE}?limit=2`)]
    // Of a transaction that is open, and then aborted.
    const open = await beginTransaction(world, 'dead-letters', 'other')
    await open.write('never')
    expect((await ask(on.api, ROUTE)).body.items).toHaveLength(4)
    await open.abort()
    await log.append('dead-letters', [letter('e', 4)])
    for (let cursor = pages[0]?.body.nextCursor; cursor !== undefined; cursor = pages.at(-1)?.body.nextCursor) {
      pages.push(await ask(on.api, `${ROUTE}?limit=2&cursor=${cursor}`))
    }
    expect(pages.map(shown)).toEqual([
      ['4 d', '2 c'],
      ['1 b', '0 a'],
    ])
    expect(pages[0]?.body.items[0]).toMatchObject({ reason: 'not-json', deviceId: 'truck-1', position: '0-3' })
    expect(shown(await ask(on.api, ROUTE))).toEqual(['8 e', '4 d', '2 c', '1 b', '0 a'])
    // Of the last 8 offsets only markers and what was aborted.
    expect(shown(await ask(on.api, `${ROUTE}?limit=1&reason=not-json`))).toEqual(['8 e'])
  })

  test('are answered with 503 while Kafka is away', async () => {
    world = await openByHand(kafka(), 9)
    on = await stage({ letters: letterReader(world.log), limits: { letterMs: 500 } })
    await world.log.append('dead-letters', [letter('a', 0)])
    await kafka().kill()
    const { status, headers, body } = await ask(on.api, ROUTE)
    expect([status, headers['retry-after'], body.type]).toEqual([503, '1', 'urn:tidemark:problem:log-unavailable'])
  })
})
