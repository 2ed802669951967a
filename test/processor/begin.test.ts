import { expect, it } from 'vitest'
import { beginProcessors } from '../../processor/open.ts'
import { readEnvironment } from '../../processor/runtime/environment.ts'
import { removeFolder, temporaryFolder } from '../../simulators/program.ts'

const begin = async (environment: Record<string, string>) => {
  const DATA_DIR = await temporaryFolder()
  await using running = new AsyncDisposableStack()
  running.defer(() => removeFolder(DATA_DIR))
  const beginnings = await beginProcessors(readEnvironment({ DATA_DIR, INSTANCE_ID: 'a', ...environment }), 1, running)
  for (const { database } of beginnings) await database.open()
  return beginnings.length
}

it('a processor on Kafka answers beyond this machine only with a secret', async () => {
  const KAFKA_BROKERS = '127.0.0.1:9092'
  const CLUSTER_SECRET = '0123456789abcdef'
  await expect(begin({ KAFKA_BROKERS, HOST: '0.0.0.0' })).rejects.toMatchObject({
    code: 'INVALID_CONFIGURATION',
    message: expect.stringMatching(/^HOST=0\.0\.0\.0: .*CLUSTER_SECRET/),
  })
  expect(await begin({ KAFKA_BROKERS, HOST: '0.0.0.0', CLUSTER_SECRET })).toBe(1)
  expect(await begin({ KAFKA_BROKERS })).toBe(1)
  expect(await begin({ HOST: '0.0.0.0' })).toBe(1)
})
