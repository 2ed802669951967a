import { Stack } from '../system/stack.ts'
import { untilGone } from './applied.ts'
import type { BenchOptions } from './bench.ts'
import { measureGet } from './get.ts'
import { loadDevices, measureIngest } from './ingest.ts'
import { measureMillion } from './million.ts'
import { measureOverload } from './overload.ts'
import { measureVisible } from './visible.ts'

export const EMBEDDED_PARTS = ['ingest', 'visible', 'get', 'million', 'overload']

const FULL = {
  messages: 4_000_000,
  devices: 100_000,
  seconds: 10,
  visibleSeconds: 20,
  pages: 1_000,
  million: 1_000_000,
  overloadSeconds: 60,
}
const QUICK = {
  messages: 300_000,
  devices: 20_000,
  seconds: 2,
  visibleSeconds: 3,
  pages: 100,
  million: 100_000,
  overloadSeconds: 5,
}

/** All roles in one process, on the embedded log. */
export async function measureEmbedded({ parts, quick, env, report }: BenchOptions): Promise<void> {
  const sizes = quick ? QUICK : FULL
  if (['ingest', 'visible', 'get'].some((part) => parts.has(part))) {
    await using stack = await Stack.start({ env })
    // The reads are of devices that the load left behind.
    const { messages, devices, seconds, visibleSeconds, pages } = sizes
    if (parts.has('ingest')) {
      report(await measureIngest(stack, { devices, messages }))
      await untilGone(stack, 'online', 0)
    } else {
      await loadDevices(stack, devices)
    }
    if (parts.has('visible')) {
      report(await measureVisible(stack, { devices, seconds: visibleSeconds }))
      await untilGone(stack, 'online', 0)
    }
    if (parts.has('get')) report(await measureGet(stack, { devices, seconds, pages }))
    await stack.stop()
  }
  if (parts.has('overload')) {
    await using stack = await Stack.start({ env })
    report(await measureOverload(stack, { devices: sizes.devices, seconds: sizes.overloadSeconds }))
    await stack.stop()
  }
  if (parts.has('million')) report(await measureMillion(sizes.million, { env }))
}
