import { describe, expect, test, vi } from 'vitest'
import type { ClaimContext } from '../../../../../processor/log/kafka/claim/claim-context.ts'
import { encodePosition } from '../../../../../processor/log/kafka/claim/position.ts'
import { startOf } from '../../../../../processor/log/kafka/claim/start.ts'
import { WireReader, WireWriter } from '../../../../../processor/log/kafka/protocol/wire.ts'

const IDS = { telemetry: 'telemetry-id', status: 'status-id', partitions: 4 }
const CHANGELOG_END = 20
const never = new AbortController().signal

interface World {
  readonly committed: { readonly offset: number; readonly epoch?: number; readonly partitions?: number }
  /** Instead of what is made of `committed`. */
  readonly metadata?: string
  /** Of telemetry. */
  readonly end: number
  /** Where what each leader epoch has written ends; -1 for what the leader does not know. */
  readonly epochEnds?: Readonly<Record<number, number>>
  /** Of telemetry, which tells of the epochs. */
  readonly leader?: Promise<number>
}

function start({ committed, metadata, end, epochEnds = {}, leader = Promise.resolve(1) }: World) {
  const warnings: unknown[] = []
  const connection = {
    send(_key: number, _name: string, _version: number, [request]: [Buffer]): Promise<Buffer> {
      const epoch = new WireReader(request, request.length - 4).int32()
      const told = new WireWriter().int32(0).int32(1).string('t').int32(1)
      return Promise.resolve(
        told
          .int16(0)
          .int32(0)
          .int32(epoch)
          .int64(epochEnds[epoch] as number)
          .finish(),
      )
    },
  }
  const context = {
    group: 'g',
    identity: IDS,
    names: { telemetry: 't', status: 's' },
    logger: { warn: (...line: unknown[]) => warnings.push(line) },
    cluster: {
      retry: (_patience: number, _signal: AbortSignal, attempt: () => Promise<unknown>) => attempt(),
      leader: () => leader,
      connection: () => Promise.resolve(connection),
    },
  } as unknown as ClaimContext
  const { offset, epoch, partitions = IDS.partitions } = committed
  const made = encodePosition({ ...IDS, changelogEnd: CHANGELOG_END, epoch, partitions })
  const sight = { committed: { offset, metadata: metadata ?? made }, stable: CHANGELOG_END }
  return { started: startOf(context, 0, sight, Promise.resolve({ start: 0, end }), never), warnings }
}

describe('a claim', () => {
  test.each<[string, World]>([
    ['at the end', { committed: { offset: 100 }, end: 100 }],
    ['before records of the same leader', { committed: { offset: 100, epoch: 5 }, end: 120, epochEnds: { 5: 120 } }],
    ['where the next leader began', { committed: { offset: 100, epoch: 5 }, end: 120, epochEnds: { 5: 100 } }],
    ['with the same partitions', { committed: { offset: 100, partitions: 4 }, end: 100 }],
    [
      'with partitions and epoch',
      { committed: { offset: 100, epoch: 5, partitions: 4 }, end: 120, epochEnds: { 5: 120 } },
    ],
    ['of a leader that nobody knows', { committed: { offset: 100, epoch: 5 }, end: 120, epochEnds: { 5: -1 } }],
  ])('starts at the committed offset: %s', async (_, world) => {
    expect(await start(world).started).toEqual({ input: 100, changelogEnd: CHANGELOG_END })
  })

  test.each([undefined, 5])('does not start with another number of partitions (epoch %s)', async (epoch) => {
    const world = { committed: { offset: 100, epoch, partitions: 3 }, end: 120, epochEnds: { 5: 120 } } as World
    await expect(start(world).started).rejects.toMatchObject({
      name: 'ConfigurationError',
      message: expect.stringMatching(/^topic t had 3 partitions when group g .* has 4 now: .* another TOPIC_PREFIX/),
    })
  })

  test('says that it obeys an offset that another tool has set', async () => {
    const { started, warnings } = start({ committed: { offset: 7 }, metadata: '', end: 100 })
    expect(await started).toEqual({ input: 7, changelogEnd: CHANGELOG_END })
    expect(warnings).toEqual([[{ partition: 0, input: 7 }, expect.stringMatching(/set with another tool/)]])
  })

  test('does not start past the end of telemetry, and says how to go on', async () => {
    await expect(start({ committed: { offset: 100 }, end: 50 }).started).rejects.toMatchObject({
      name: 'RetryableError',
      message: expect.stringMatching(
        /^t 0 ends at 50, before the 100 .* lost .* --topic t:0 --reset-offsets --to-latest /,
      ),
    })
  })

  test('waits for the leader to tell what it holds of what was read, however long that takes', async () => {
    vi.useFakeTimers()
    try {
      const { promise: leader, resolve: answer } = Promise.withResolvers<number>()
      const world = { committed: { offset: 100, epoch: 5 }, end: 110, epochEnds: { 5: 50 }, leader }
      const refused = expect(start(world).started).rejects.toThrow(/^t 0: what stands at 50 and after /)
      await vi.advanceTimersByTimeAsync(5_000)
      answer(1)
      await refused
    } finally {
      vi.useRealTimers()
    }
  })

  test.each([110, 100, 60])(
    'does not start behind records that took the place of lost ones, up to %i, and says from where on they are new',
    async (end) => {
      const world = { committed: { offset: 100, epoch: 5 }, end, epochEnds: { 5: 50 } }
      await expect(start(world).started).rejects.toMatchObject({
        name: 'RetryableError',
        message: expect.stringMatching(/^t 0: what stands at 50 and after .* --reset-offsets --to-offset 50 /),
      })
    },
  )
})
