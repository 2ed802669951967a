import { pause } from '../../processor/runtime/pause.ts'
import { Stack, type StackOptions } from '../system/stack.ts'
import { partitions, untilApplied } from './applied.ts'
import type { Figure } from './figure.ts'
import { loadDevices, PREFIX } from './ingest.ts'
import { LoadProcess } from './load-process.ts'
import { usage } from './machine.ts'

const READY_LIMIT_MS = 3_000
const RESIDENT_LIMIT_MIB = 800
const POLL_MS = 50

/** Memory with many devices stored, and how soon a process that finds them is ready. */
export async function measureMillion(devices: number, options: StackOptions): Promise<Figure[]> {
  await using stack = await Stack.start(options)
  await loadDevices(stack, devices)
  await expectDevices(stack, devices)
  const loaded = resident(stack)

  await stack.stop()
  const cleanMs = await stack.restart()
  await untilApplied(stack, devices)
  await expectDevices(stack, devices)
  const restarted = resident(stack)

  const crashed = await crashUnderLoad(stack, devices)
  const afterKillMs = await stack.restart()
  await untilApplied(stack, devices + crashed)
  await expectDevices(stack, devices)
  const recovered = resident(stack)

  const name = `${devices.toLocaleString('en-US')} devices`
  const memory = { unit: 'MiB', limit: { atMost: RESIDENT_LIMIT_MIB } }
  return [
    {
      what: `million: ${name}, resident after the load`,
      value: loaded.residentMiB,
      note: `peak ${Math.round(loaded.peakMiB)} MiB`,
      ...memory,
    },
    { what: `million: ${name}, resident after a restart`, value: restarted.residentMiB, ...memory },
    { what: `million: ${name}, resident after kill -9 and restart`, value: recovered.residentMiB, ...memory },
    { what: 'million: ready after a clean restart', value: cleanMs, unit: 'ms', limit: { atMost: READY_LIMIT_MS } },
    {
      what: 'million: ready after kill -9 under load',
      value: afterKillMs,
      unit: 'ms',
      note: `${crashed.toLocaleString('en-US')} more messages when killed`,
      limit: { atMost: READY_LIMIT_MS },
    },
  ]
}

/** Kills the process when about half as many messages as devices came on top; how many at least. */
async function crashUnderLoad(stack: Stack, devices: number): Promise<number> {
  const inputs = async (): Promise<number> =>
    (await partitions(stack)).partitions.reduce((sum, { owner }) => sum + (owner?.offset ?? 0), 0)
  const before = await inputs()
  await using _load = await LoadProcess.start({ port: stack.mqttPort, prefix: PREFIX, devices })
  let applied = 0
  while (applied < devices / 2) {
    await pause(POLL_MS)
    applied = (await inputs()) - before
  }
  await stack.kill()
  return applied
}

async function expectDevices(stack: Stack, devices: number): Promise<void> {
  const { totals } = await partitions(stack)
  // null: still being counted, which is not what is measured here.
  if (totals.devices !== null && totals.devices !== devices)
    throw new Error(`${totals.devices} of ${devices} devices are stored`)
}

function resident(stack: Stack): { residentMiB: number; peakMiB: number } {
  return usage(stack.program.child.pid as number) ?? { residentMiB: Number.NaN, peakMiB: Number.NaN }
}
