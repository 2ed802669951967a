import { expect, onTestFinished, test, vi } from 'vitest'
import { EmbeddedStorage } from '../../../../processor/log/embedded/storage.ts'
import { record } from '../../../contract/log-records.ts'
import { failingDatabase, folder, openLog } from './folder.ts'

test('has room in its queue again for what has been written', async () => {
  const log = await openLog(await folder(), { maxQueuedBytes: 10_000 })
  const value = Buffer.alloc(3000)
  const append = () => log.append('telemetry', [{ key: 'k', value, timestamp: 1 }])
  await Promise.all([append(), append(), append()])
  await Promise.all([append(), append(), append()])
  expect((await log.bounds({ topic: 'telemetry', index: 0 })).end).toBe(6)
})

test('stays refused on a volume that was full until so much is free, and is not opened anew before', async () => {
  const { database, failWrites } = failingDatabase()
  const free = vi.spyOn(EmbeddedStorage.prototype, 'free').mockResolvedValue(999)
  onTestFinished(() => free.mockRestore())
  const log = await openLog(await folder(), { database, minFreeBytes: 1000 })
  failWrites(() => true)
  await expect(log.append('telemetry', [record('k', '1')])).rejects.toMatchObject({ code: 'LOG_NO_SPACE' })
  failWrites(undefined)
  await vi.waitFor(() => expect(free.mock.calls.length > 1 || log.fault === undefined).toBe(true))
  expect(log.fault).toMatchObject({ code: 'LOG_NO_SPACE' })
  await expect(log.append('telemetry', [record('k', '2')])).rejects.toMatchObject({ code: 'LOG_NO_SPACE' })
  free.mockResolvedValue(1000)
  await vi.waitFor(() => expect(log.fault).toBeUndefined())
  await log.append('telemetry', [record('k', '3')])
})
