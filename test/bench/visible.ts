import { connectAsync } from 'mqtt'
import { pause } from '../../processor/runtime/pause.ts'
import type { DeviceAnswer } from '../system/answers.ts'
import type { Stack } from '../system/stack.ts'
import { type Figure, percentiles } from './figure.ts'
import { PREFIX } from './ingest.ts'
import { KeepAlive } from './keep-alive.ts'
import { LoadProcess } from './load-process.ts'

const RATE_PER_SECOND = 5_000
const PROBES = 16
/** Between two looks at a probe: many enough to see it at once, few enough not to be the load. */
const POLL_MS = 1
const VISIBLE_WITHIN_MS = 10_000
/** Longest rest between two probes, which keeps them from falling in step with the batches. */
const REST_MS = 15

export interface VisibleSizes {
  readonly devices: number
  readonly seconds: number
}

/** From PUBLISH to the value in an HTTP answer, beside a steady load. */
export async function measureVisible(stack: Stack, { devices, seconds }: VisibleSizes): Promise<Figure[]> {
  await using load = await LoadProcess.start({ port: stack.mqttPort, prefix: PREFIX, devices, rate: RATE_PER_SECOND })
  const outcome = load.outcome()
  let samples: number[]
  try {
    samples = await Promise.race([
      probe(stack, seconds),
      outcome.then(() => Promise.reject(new Error('the load ended early'))),
    ])
  } finally {
    load.stop()
  }
  const { report } = await outcome
  const { p50, p99 } = percentiles(samples)
  const note = `${samples.length} probes beside ${report.perSecond} msg/s`
  return [
    { what: 'visible: PUBLISH to HTTP at 5,000 msg/s, p50', value: p50, unit: 'ms', note },
    { what: 'visible: PUBLISH to HTTP at 5,000 msg/s, p99', value: p99, unit: 'ms', limit: { atMost: 50 } },
    {
      what: 'visible: PUBLISH to PUBACK at 5,000 msg/s, p99',
      value: report.ackMs.p99,
      unit: 'ms',
      note: `p50 ${report.ackMs.p50} ms`,
    },
  ]
}

async function probe(stack: Stack, seconds: number): Promise<number[]> {
  using http = new KeepAlive(stack.httpPort)
  const client = await connectAsync({ protocol: 'mqtt', host: '127.0.0.1', port: stack.mqttPort, clientId: 'probe' })
  const samples: number[] = []
  const end = performance.now() + seconds * 1000
  try {
    for (let value = 1; performance.now() < end; value++) {
      const id = `probe-${value % PROBES}`
      const start = performance.now()
      const acknowledged = client.publishAsync(`devices/${id}/telemetry`, JSON.stringify({ value }), { qos: 1 })
      await untilVisible(http, id, value, start)
      samples.push(performance.now() - start)
      await acknowledged
      await pause(Math.random() * REST_MS)
    }
  } finally {
    await client.endAsync(true)
  }
  return samples
}

async function untilVisible(http: KeepAlive, id: string, value: number, start: number): Promise<void> {
  for (;;) {
    const { status, text } = await http.send('GET', `/v1/devices/${id}`)
    if (status === 200 && (JSON.parse(text) as DeviceAnswer).reported.value?.value === value) return
    if (status !== 200 && status !== 404) throw new Error(`GET /v1/devices/${id}: ${status} ${text}`)
    if (performance.now() - start > VISIBLE_WITHIN_MS)
      throw new Error(`${id} did not show ${value} in ${VISIBLE_WITHIN_MS} ms`)
    await pause(POLL_MS)
  }
}
