import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { Responses, SIZE_BYTES } from '../../../../../processor/log/kafka/protocol/wire.ts'

const RUNS = 300
const LARGEST = 40_000

function framed(body: Uint8Array): Buffer {
  const response = Buffer.alloc(SIZE_BYTES + body.length)
  response.writeInt32BE(body.length)
  response.set(body, SIZE_BYTES)
  return response
}

/** As a socket does: as much as has come and there is room for. Gives the responses as they are when all has been read. */
function readAll(sent: Buffer, pieces: () => number): Buffer[] {
  const given: Buffer[] = []
  const responses = new Responses((response) => given.push(response))
  for (let at = 0; at < sent.length; ) {
    const { target } = responses
    const bytes = sent.copy(target, 0, at, Math.min(sent.length, at + pieces()))
    responses.read(bytes)
    at += bytes
  }
  return given
}

describe('Responses', () => {
  test('gives what was sent, however it comes, in memory of its own', () => {
    const size = fc.oneof(fc.nat(20), fc.nat(LARGEST))
    const piece = fc.oneof(fc.integer({ min: 1, max: 9 }), fc.integer({ min: 1, max: 2 * LARGEST }))
    fc.assert(
      fc.property(
        fc.array(size, { maxLength: 12 }),
        fc.array(piece, { minLength: 1, maxLength: 20 }),
        (sizes, cuts) => {
          const sent = sizes.map((length, i) => framed(Buffer.alloc(length, i + 1)))
          let cut = 0
          const given = readAll(Buffer.concat(sent), () => cuts[cut++ % cuts.length] as number)
          expect(given.map((response) => response.toString('hex'))).toEqual(
            sent.map((response) => response.toString('hex')),
          )
        },
      ),
      { numRuns: RUNS },
    )
  })

  test.each([
    ['a negative size', Buffer.from([0xff, 0xff, 0xff, 0xff])],
    ['HTTP', Buffer.from('HTTP/1.1 400 Bad Request\r\n\r\n')],
  ])('refuses %s', (_, sent) => {
    expect(() => readAll(sent, () => sent.length)).toThrow('are no response of a Kafka broker')
  })
})
