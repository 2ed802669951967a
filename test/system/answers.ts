import type { Freshness } from '../../processor/contract/query.ts'
import type { Status } from '../../processor/contract/status.ts'
import type { Stack } from './stack.ts'

/** What `GET /v1/devices/{deviceId}` answers. */
export type DeviceAnswer = Status & { readonly freshness: Freshness }

export function device(stack: Stack, deviceId: string): Promise<DeviceAnswer> {
  return stack.json<DeviceAnswer>(`/v1/devices/${deviceId}`)
}

/** The devices of one `batch-get`, by id; ids that are not known are left out. */
export async function batchGet(stack: Stack, deviceIds: readonly string[]): Promise<Map<string, DeviceAnswer>> {
  const { results } = await stack.json<{ results: (DeviceAnswer & { found?: boolean })[] }>('/v1/devices/batch-get', {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ deviceIds }),
  })
  return new Map(results.filter((result) => result.found).map((result) => [result.deviceId, result]))
}

/** Samples of a Prometheus text, as `name{labels}` with the labels as they stand. */
async function metrics(stack: Stack): Promise<Map<string, number>> {
  const text = await (await stack.get('/metrics')).text()
  const samples = new Map<string, number>()
  for (const line of text.split('\n')) {
    const match = /^([a-z_:][^ ]*(?:\{.*\})?) ([^ ]+)$/i.exec(line)
    if (match !== null) samples.set(match[1] as string, Number(match[2]))
  }
  return samples
}

/** Records that ingest and processor put to the dead letters, by reason. */
export async function deadLetters(stack: Stack): Promise<Record<string, number>> {
  const counts: Record<string, number> = {}
  for (const [sample, value] of await metrics(stack)) {
    const reason = /^tidemark_\w*dead_letters_total\{.*reason="([^"]*)"/.exec(sample)?.[1]
    if (reason !== undefined && value > 0) counts[reason] = (counts[reason] ?? 0) + value
  }
  return counts
}
