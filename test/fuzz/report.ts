import { readFile } from 'node:fs/promises'

interface Scenario {
  readonly ScenarioFinished?: {
    /** Without interactions: there was nothing to try in that phase. */
    readonly recorder: {
      /** `GET /v1/devices` */
      readonly label: string
      readonly interactions?: Readonly<Record<string, { readonly response: { readonly status_code: number } | null }>>
    }
  }
}

/** The statuses that each operation answered with, by a report of the fuzzer in NDJSON. */
export async function statusesOf(report: string): Promise<ReadonlyMap<string, ReadonlySet<number>>> {
  const statuses = new Map<string, Set<number>>()
  for (const line of (await readFile(report, 'utf8')).split('\n')) {
    const recorder = line === '' ? undefined : (JSON.parse(line) as Scenario).ScenarioFinished?.recorder
    if (recorder === undefined) continue
    const seen = statuses.get(recorder.label) ?? new Set()
    for (const { response } of Object.values(recorder.interactions ?? {}))
      if (response !== null) seen.add(response.status_code)
    statuses.set(recorder.label, seen)
  }
  return statuses
}
