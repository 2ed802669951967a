import { Type } from 'typebox'
import type { Copy, PartitionInfo, StatusReader } from '../../processor/contract/query.ts'
import type { Limiter } from '../../processor/runtime/limiter.ts'
import type { Api } from '../app.ts'
import { EXAMPLE_COPY, jsonAnswer, problemAnswers } from '../http/documentation.ts'

export function partitionRoutes(api: Api, reader: StatusReader, many: Limiter): void {
  api.get('/v1/partitions', { schema: GET_PARTITIONS, config: { scope: 'ops:read' } }, async () => {
    const partitions = await many.run(() => reader.partitions())
    return { partitions: partitions.map(partitionBody), totals: totals(partitions) }
  })
}

function partitionBody({ partition, owner, standbys }: PartitionInfo): object {
  return { partition, owner: owner === undefined ? null : copyBody(owner), standbys: standbys.map(copyBody) }
}

function copyBody({ instance, state, offset, changelogOffset, lag, devices, restore }: Copy): object {
  const body = { instance, state, offset, changelogOffset, lag: lag ?? null, devices: devices ?? null }
  return restore === undefined ? body : { ...body, restore: { ...restore, etaSeconds: restore.etaSeconds ?? null } }
}

function totals(partitions: readonly PartitionInfo[]): object {
  let owned = 0
  let lag: number | null = 0
  let devices: number | null = 0
  for (const { owner } of partitions) {
    if (owner?.state === 'running') owned++
    // A partition without an owner adds nothing.
    if (owner !== undefined) lag = lag === null || owner.lag === undefined ? null : lag + owner.lag
    devices = devices === null || owner?.devices === undefined ? null : devices + owner.devices
  }
  return { partitions: partitions.length, owned, lag, devices }
}

const GET_PARTITIONS = {
  operationId: 'getPartitions',
  summary: 'Who holds each partition, and how far each copy is',
  description: 'Of the whole log: a token that is for some devices is told of all, too.',
  querystring: Type.Object({}, { additionalProperties: false }),
  response: {
    200: jsonAnswer('All partitions.', 'Partitions', {
      partitions: [{ partition: 0, owner: EXAMPLE_COPY, standbys: [{ ...EXAMPLE_COPY, instance: 'tidemark-2' }] }],
      totals: { partitions: 1, owned: 1, lag: 0, devices: 125_000 },
    }),
    ...problemAnswers('partition-unavailable', 'overloaded'),
  },
}
