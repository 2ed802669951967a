import { BaseSequencer, type TestSpecification } from 'vitest/node'

/** Files that take half a minute and more: one that began last would run alone, with a core to spare. */
const LONG = [
  'kafka/drill.test.ts',
  'kafka/kills.test.ts',
  'simulation/simulation.test.ts',
  'system/drill.test.ts',
  'system/fuzz.test.ts',
  'kafka/topics.test.ts',
  'kafka/histories.test.ts',
  'kafka/trials.test.ts',
  'operations/stateless.test.ts',
  'contract/log-kafka.test.ts',
  'operations/topology.test.ts',
]

/** Begins with the long files. Without times of an earlier run files go by size, which tells little. */
export default class LongFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const sorted = await super.sort(files)
    return sorted.sort((a, b) => rank(a) - rank(b))
  }
}

function rank({ moduleId }: TestSpecification): number {
  const index = LONG.findIndex((name) => moduleId.endsWith(`/test/${name}`))
  return index === -1 ? LONG.length : index
}
