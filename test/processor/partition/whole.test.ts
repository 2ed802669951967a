import { expect, it, vi } from 'vitest'
import { OffsetOutOfRangeError, RetryableError } from '../../../processor/contract/errors.ts'
import type { Batch } from '../../../processor/log/log.ts'
import { MemoryLog } from '../memory-log.ts'
import { said, Workbench } from '../workbench.ts'

const FIRST = 100

/** A log with a changelog, and `more` that makes it longer by as much. */
async function filled() {
  const log = new MemoryLog()
  const claim = log.claim()
  let end = 0
  const more = async () => {
    const changelog = Array.from({ length: FIRST }, (_, i) => said(`d-${end + i}`, { deviceId: `d-${end + i}` }))
    end += FIRST
    await claim.commit({ changelog, deadLetters: [], next: end })
  }
  await more()
  return { log, more }
}

/** A standby that is whole; `told` says of each word of it how far the copy was. */
async function whole(bench: Workbench) {
  const told: [is: boolean, at: number | undefined][] = []
  const store = await bench.store()
  const copying = { heir: false, held: true, whole: (is: boolean) => void told.push([is, store.checkpoint?.changelog]) }
  const { role } = await bench.standby(0, copying, store)
  await vi.waitFor(() => expect(told).toEqual([[true, FIRST]]))
  return { told, store, role }
}

it('a copy that is wiped since it is damaged is whole no more until it holds everything again', async () => {
  const { log } = await filled()
  const follow = log.follow.bind(log)
  const [ends, goesOn] = [new AbortController(), Promise.withResolvers<void>()]
  let follows = 0
  log.follow = async function* (of, from, limits, signal): AsyncGenerator<Batch> {
    if (++follows > 1) await goesOn.promise
    yield* follow(of, from, limits, follows > 1 ? signal : AbortSignal.any([signal, ends.signal]))
    if (ends.signal.aborted && !signal.aborted) throw new OffsetOutOfRangeError('a new leader has less')
  }
  await using bench = await Workbench.open(log)
  const { told, role } = await whole(bench)
  ends.abort()
  await vi.waitFor(() => expect(follows).toBe(2))
  expect(role.state).toBe('restoring')
  expect(told.slice(1)).toEqual([[false, FIRST]])
  goesOn.resolve()
  await vi.waitFor(() => expect(told).toHaveLength(3))
  expect(told[2]).toEqual([true, FIRST])
})

it('so is one that cannot be resumed, since the changelog begins after it now', async () => {
  const { log, more } = await filled()
  const follow = log.follow.bind(log)
  const bounds = log.bounds.bind(log)
  const [ends, goesOn] = [new AbortController(), Promise.withResolvers<void>()]
  let follows = 0
  log.follow = async function* (of, from, limits, signal): AsyncGenerator<Batch> {
    if (++follows > 1) await goesOn.promise
    yield* follow(of, from, limits, follows > 1 ? signal : AbortSignal.any([signal, ends.signal]))
    if (ends.signal.aborted && !signal.aborted) throw new RetryableError('LOG_UNAVAILABLE', 'the leader is away')
  }
  await using bench = await Workbench.open(log)
  const { told } = await whole(bench)
  ends.abort()
  log.bounds = async (of) => ({ ...(await bounds(of)), start: FIRST + 1 })
  await more()
  await vi.waitFor(() => expect(follows).toBe(2))
  expect(told.slice(1)).toEqual([[false, FIRST]])
  goesOn.resolve()
  await vi.waitFor(() => expect(told).toHaveLength(3))
  expect(told[2]).toEqual([true, 2 * FIRST])
})

it('one whose store cannot be written is whole again when it has caught up with what came in meanwhile', async () => {
  const { log, more } = await filled()
  await using bench = await Workbench.open(log, { changelogRecords: 10 })
  const { told, store, role } = await whole(bench)
  const commit = store.commit.bind(store)
  store.commit = () => Promise.reject(new RetryableError('STORE_UNAVAILABLE', 'no space left on device'))
  await more()
  await vi.waitFor(() => expect(told.slice(1)).toEqual([[false, FIRST]]))
  await more()
  // How far it is to catch up is asked for from time to time: what the last batch says was so before it was refused.
  await role.refreshLag()
  store.commit = commit
  await vi.waitFor(() => expect(store.checkpoint?.changelog).toBe(3 * FIRST))
  expect(told).toHaveLength(2)
  await role.refreshLag()
  expect(told[2]).toEqual([true, 3 * FIRST])
})
