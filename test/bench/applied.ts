import { pause } from '../../processor/runtime/pause.ts'
import { loadDeviceId, loadTemperature, SEQ_START } from '../../simulators/load/load-connection.ts'
import { batchGet } from '../system/answers.ts'
import type { Stack } from '../system/stack.ts'
import { KeepAlive } from './keep-alive.ts'

interface Partitions {
  readonly partitions: readonly { readonly owner: { readonly offset: number } | null }[]
  readonly totals: {
    readonly partitions: number
    readonly owned: number
    readonly lag: number
    readonly devices: number | null
  }
}

const POLL_MS = 5
const APPLIED_WITHIN_MS = 600_000

export function partitions(stack: Stack): Promise<Partitions> {
  return stack.json<Partitions>('/v1/partitions')
}

/**
 * Waits until every partition has an owner without lag, and at least `records` in all were applied; resolves with the
 * epoch ms at which that was seen.
 */
export async function untilApplied(stack: Stack, records: number): Promise<number> {
  using http = new KeepAlive(stack.httpPort)
  const deadline = Date.now() + APPLIED_WITHIN_MS
  for (;;) {
    const { partitions: infos, totals } = await http.json<Partitions>('GET', '/v1/partitions')
    const offsets = infos.reduce((sum, { owner }) => sum + (owner?.offset ?? 0), 0)
    const now = Date.now()
    if (totals.owned === totals.partitions && totals.lag === 0 && offsets >= records) return now
    if (now > deadline)
      throw new Error(`lag ${totals.lag}, ${offsets} of ${records} records applied after ${APPLIED_WITHIN_MS} ms`)
    await pause(POLL_MS)
  }
}

/**
 * Waits until what a load leaves behind when it disconnects is applied too: a record of each device. What is measured
 * before that is measured beside it. Then so many devices are in that state of connectivity.
 */
export async function untilGone(stack: Stack, state: string, wanted: number): Promise<void> {
  const deadline = Date.now() + APPLIED_WITHIN_MS
  for (;;) {
    const count = await countOf(stack, state)
    if (count === wanted) break
    if (Date.now() > deadline)
      throw new Error(`${count} devices are ${state} after ${APPLIED_WITHIN_MS} ms, not ${wanted}`)
    await pause(POLL_MS)
  }
  await untilApplied(stack, 0)
}

/** Devices in that state of connectivity. */
export async function countOf(stack: Stack, state: string): Promise<number> {
  return (await stack.json<{ count: number }>(`/v1/devices/count?q=connectivity.state:${state}`)).count
}

/** Compares 2,000 devices, spread over all, with what the load generator knows; throws when one differs. */
export async function checkApplied(stack: Stack, prefix: string, lastAcknowledged: Uint32Array): Promise<void> {
  const count = Math.min(2_000, lastAcknowledged.length)
  const step = Math.max(1, Math.floor(lastAcknowledged.length / count))
  const numbers = Array.from({ length: count }, (_, i) => i * step)
  for (let from = 0; from < numbers.length; from += 500) {
    const slice = numbers.slice(from, from + 500)
    const answers = await batchGet(
      stack,
      slice.map((number) => loadDeviceId(prefix, number)),
    )
    for (const number of slice) {
      const seq = lastAcknowledged[number] as number
      const answer = answers.get(loadDeviceId(prefix, number))
      const messages = answer?.counters.messages ?? 0
      const expected = seq === 0 ? 0 : seq - SEQ_START + 1
      const value = answer?.reported.temperature?.value
      if (messages === expected && (seq === 0 || value === loadTemperature(number, seq))) continue
      throw new Error(
        `device ${number}: ${messages} messages applied where ${expected} were acknowledged, temperature ${JSON.stringify(value)}`,
      )
    }
  }
}
