import { fileURLToPath } from 'node:url'
import { freePorts, Program } from '../../simulators/program.ts'
import type { Stack } from '../system/stack.ts'
import { checkApplied, untilApplied, untilGone } from './applied.ts'
import type { Figure } from './figure.ts'
import { type LoadFlags, LoadProcess, load as loadOnce } from './load-process.ts'
import { usage } from './machine.ts'
import { untilListening } from './peer.ts'

export const PREFIX = 'load'
const BARE_AEDES = fileURLToPath(new URL('bare-aedes.ts', import.meta.url))

export interface IngestSizes {
  readonly messages: number
  readonly devices: number
}

/** QoS 1 at saturation, from the first publish until the last message is visible. */
export async function measureIngest(stack: Stack, sizes: IngestSizes): Promise<Figure[]> {
  const flags = { prefix: PREFIX, connections: 100, devices: sizes.devices, messages: sizes.messages }
  const before = usage(stack.program.child.pid as number)
  await using load = await LoadProcess.start({ ...flags, port: stack.mqttPort })
  const { report, lastAcknowledged } = await load.outcome()
  const appliedAt = await untilApplied(stack, report.acknowledged)
  await checkApplied(stack, PREFIX, lastAcknowledged)
  const after = usage(stack.program.child.pid as number)
  const seconds = (appliedAt - report.firstPublishAt) / 1000
  const bare = await bareAedes(flags)
  const processorSeconds =
    after === undefined || before === undefined ? undefined : after.cpuSeconds - before.cpuSeconds
  const behind = appliedAt - report.lastAcknowledgedAt
  return [
    {
      what: `ingest: ${sizes.messages.toLocaleString('en-US')} QoS 1 of ${report.payloadBytes} B acknowledged and applied, 100 connections, ${sizes.devices.toLocaleString('en-US')} devices`,
      value: report.acknowledged / seconds,
      unit: 'msg/s',
      limit: { atLeast: 80_000 },
      peer: { what: 'bare aedes that keeps nothing', value: bare },
      note: `applied ${behind} ms after the last PUBACK`,
    },
    {
      what: 'ingest: PUBACK latency at saturation, p99',
      value: report.ackMs.p99,
      unit: 'ms',
      note: `p50 ${report.ackMs.p50} ms, max ${report.ackMs.max} ms`,
    },
    ...(processorSeconds === undefined
      ? []
      : [
          {
            what: 'ingest: processor time of the process, all threads',
            value: (processorSeconds / report.acknowledged) * 1e6,
            unit: 'µs/msg',
            note: `${(processorSeconds / seconds).toFixed(2)} cores, generator ${(report.cpuSeconds / report.seconds).toFixed(2)}`,
          },
          { what: 'ingest: resident memory, peak', value: after?.peakMiB ?? 0, unit: 'MiB' },
        ]),
  ]
}

/** One message of each device, over connections that stay until it is applied, and are gone then. */
export async function loadDevices(stack: Stack, devices: number): Promise<void> {
  {
    await using load = await LoadProcess.start({ port: stack.mqttPort, prefix: PREFIX, devices, messages: devices })
    const { report } = await load.outcome()
    await untilApplied(stack, report.acknowledged)
  }
  await untilGone(stack, 'online', 0)
}

async function bareAedes(flags: Omit<LoadFlags, 'port'>): Promise<number> {
  const [port] = (await freePorts(1)) as [number]
  const peer = new Program(BARE_AEDES, [String(port)])
  try {
    await untilListening(port)
    return (await loadOnce({ ...flags, port })).report.perSecond
  } finally {
    await peer.kill()
  }
}
