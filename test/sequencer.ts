import { BaseSequencer, type TestSpecification } from 'vitest/node'

/** Files that take ten seconds and more, the longest first: one that began last would run alone, with a core to spare. */
const SLOWEST = [
  'kafka/drill.long',
  'kafka/kills.long',
  'system/drill.long',
  'simulation/schedules.long',
  'kafka/slow-uplink.long',
  'kafka/histories.long',
  'system/fuzz.long',
  'kafka/trials.long',
  'operations/stateless.long',
  'kafka/cluster',
  'kafka/topics.long',
  'contract/log-kafka',
  'simulation/simulation',
  'ingest/connection/flow.long',
  'system/configuration.long',
  'kafka/anew.long',
  'kafka/death.long',
  'system/simulate.long',
]

/** Begins with the slow files: without the times of an earlier run vitest goes by file size, which tells little. */
export default class SlowestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const sorted = await super.sort(files)
    return sorted.sort((a, b) => rank(a) - rank(b))
  }
}

function rank({ moduleId }: TestSpecification): number {
  const index = SLOWEST.findIndex((name) => moduleId.endsWith(`/test/${name}.test.ts`))
  return index === -1 ? SLOWEST.length : index
}
