import { expect, test } from 'vitest'
import { partitionOf } from '../../../../processor/contract/partition.ts'
import { hotFleet } from '../../../../simulators/drill/load/traffic.ts'
import { loadDeviceId } from '../../../../simulators/load/load-connection.ts'
import { seededRandom } from '../../../../simulators/random.ts'

const SHARE = 0.8
const MESSAGES = 10_000

test.each([
  [1, 8],
  [3, 8],
  [60, 4],
  [200, 64],
  [5_000, 8],
])('%i devices on %i partitions: four fifths of the messages go to one of them', (devices, partitions) => {
  const ids = Array.from({ length: devices }, (_, device) => loadDeviceId('drill-0a1b2c', device))
  const { connections, choose } = hotFleet(ids, partitions, SHARE, 100, seededRandom(1, 1))
  const counts = Array.from({ length: partitions }, () => 0)
  const spoken = new Set<string>()
  for (let i = 0; i < MESSAGES; i++) {
    const connection = i % connections
    const id = ids[connection + connections * choose(connection)] as string
    spoken.add(id)
    const partition = partitionOf(id, partitions)
    counts[partition] = (counts[partition] as number) + 1
  }
  expect(Math.max(...counts) / MESSAGES).toBeGreaterThan(SHARE - 0.02)
  // The others are not silent.
  expect(spoken.size).toBeGreaterThan(Math.min(devices, 1_000) - 1)
})

test('a fleet in which every connection can have its share has all of them', () => {
  const ids = Array.from({ length: 20_000 }, (_, device) => loadDeviceId('drill-0a1b2c', device))
  expect(hotFleet(ids, 4, SHARE, 100, seededRandom(1, 1)).connections).toBe(100)
})
