import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { type FoundDevice, searchFleet } from '../../api/search/fleet-search.ts'
import { type Field, parseField } from '../../processor/contract/field.ts'
import { type Order, parseOrder, sortKey } from '../../processor/contract/order.ts'
import { partitionOf } from '../../processor/contract/partition.ts'
import { bufferOf, type Slice, type StatusReader } from '../../processor/contract/query.ts'
import { decodeStatus, type Status } from '../../processor/contract/status.ts'
import { parseQuery } from '../../processor/search/language/parser.ts'

/** A StatusReader over some devices, with a way to add one. */
export interface ReadableFleet extends AsyncDisposable {
  readonly reader: StatusReader
  readonly partitions: number
  /** Resolves when a read can see the device. */
  put(deviceId: string, reported: Status['reported']): Promise<void>
}

/** A page of the devices with an id after `after`, as the API reads it. */
export async function listed(
  reader: StatusReader,
  after: string | undefined,
  limit: number,
): Promise<{ items: readonly FoundDevice[]; more: boolean }> {
  const { items, next } = await searchFleet(reader, {
    query: parseQuery(''),
    within: undefined,
    order: parseOrder('deviceId') as Order,
    after: after === undefined ? undefined : { key: sortKey(after), deviceId: after },
    limit,
    isOver: () => false,
  })
  return { items, more: next !== undefined }
}

const AT = '2026-11-24T10:00:00.000Z'

/** What every StatusReader does, whatever is behind it. */
export function readerContract(name: string, open: () => Promise<ReadableFleet>): void {
  describe(`${name} as a StatusReader`, () => {
    let fleet: ReadableFleet
    beforeEach(async () => {
      fleet = await open()
    })
    afterEach(() => fleet[Symbol.asyncDispose]())

    const ids = async (after: string | undefined, limit: number) => {
      const { items, more } = await listed(fleet.reader, after, limit)
      return { ids: items.map((item) => item.deviceId), more }
    }

    const put = (...deviceIds: string[]) =>
      Promise.all(deviceIds.map((deviceId) => fleet.put(deviceId, { t: { value: deviceId, at: AT } })))

    it('gets a device with the freshness of its partition', async () => {
      await put('truck-1')
      const { status, freshness } = await fleet.reader.get('truck-1')
      expect(decodeStatus(bufferOf(status as Slice))).toMatchObject({
        deviceId: 'truck-1',
        reported: { t: { value: 'truck-1' } },
      })
      expect(freshness.partition).toBe(partitionOf('truck-1', fleet.partitions))
      expect(['owner', 'standby']).toContain(freshness.servedBy)
    })

    it('answers a device that is not known without a status', async () => {
      expect(await fleet.reader.get('nobody')).toMatchObject({
        status: undefined,
        freshness: { lag: expect.any(Number) },
      })
    })

    it('gets many in the order of the ids, repeated and unknown ones too', async () => {
      await put('a', 'b', 'c', 'd')
      const answers = await fleet.reader.getMany(['d', 'nobody', 'a', 'd'])
      const answered = answers.map((answer) =>
        answer instanceof Error || answer.status === undefined
          ? undefined
          : decodeStatus(bufferOf(answer.status)).deviceId,
      )
      expect(answered).toEqual(['d', undefined, 'a', 'd'])
      expect(await fleet.reader.getMany([])).toEqual([])
    })

    it('lists all devices in byte order, page by page, each once', async () => {
      const all = Array.from({ length: 60 }, (_, i) => `d${i}`).concat('Z', 'a:b', 'a.b', '-', '_', 'd')
      await put(...all)
      const seen: string[] = []
      for (let after: string | undefined; ; after = seen.at(-1)) {
        const { items, more } = await listed(fleet.reader, after, 7)
        seen.push(...items.map((item) => item.deviceId))
        expect(items.length).toBeLessThanOrEqual(7)
        if (!more) break
        expect(items.length).toBeGreaterThan(0)
      }
      expect(seen).toEqual(all.toSorted((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b))))
    })

    it('says that no more follow when a page ends with the last device', async () => {
      await put('a', 'b', 'c')
      expect(await ids(undefined, 3)).toEqual({ ids: ['a', 'b', 'c'], more: false })
      expect(await ids(undefined, 2)).toEqual({ ids: ['a', 'b'], more: true })
      expect(await ids('c', 2)).toEqual({ ids: [], more: false })
      expect(await ids('bb', 2)).toEqual({ ids: ['c'], more: false })
    })

    it('searches each partition, and sums it up', async () => {
      await put(...Array.from({ length: 20 }, (_, i) => `d${i}`))
      const found: string[] = []
      let devices = 0
      for (let partition = 0; partition < fleet.partitions; partition++) {
        const query = parseQuery('reported.t:d1*')
        const order = parseOrder('-reported.t') as Order
        const slice = await fleet.reader.search({
          partition,
          query,
          order,
          within: ['d1'],
          after: undefined,
          from: undefined,
          limit: 9,
        })
        expect(slice).toMatchObject({ settled: true, more: false, next: undefined, freshness: { partition } })
        found.push(...slice.items.map(({ status }) => decodeStatus(status).deviceId))
        const by = [parseField('deviceId') as Field]
        const counted = await fleet.reader.summarize({
          partition,
          query,
          by,
          metrics: [],
          within: undefined,
          from: undefined,
        })
        devices += counted.summary.devices
        expect(counted.summary.groups.map(({ values }) => values[0])).toEqual(
          slice.items.map((item) => item.deviceId).toSorted(),
        )
      }
      expect(found.toSorted()).toEqual(['d1', ...Array.from({ length: 10 }, (_, i) => `d1${i}`)])
      expect(devices).toBe(11)
    })

    it('tells of every partition', async () => {
      const partitions = await fleet.reader.partitions()
      expect(partitions.map(({ partition }) => partition)).toEqual(
        Array.from({ length: fleet.partitions }, (_, i) => i),
      )
      for (const { partition, owner } of partitions) expect(owner).toMatchObject({ partition, role: 'owner' })
    })
  })
}
