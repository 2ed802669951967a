import { createHash } from 'node:crypto'
import { Type } from 'typebox'
import { Compile } from 'typebox/compile'
import { partitionOf } from '../../../processor/contract/partition.ts'
import type { Freshness, PartitionReader } from '../../../processor/contract/query.ts'
import type { Status } from '../../../processor/contract/status.ts'
import type { StateStore } from '../../../processor/store/store.ts'
import type { Alone } from '../stage/evidence.ts'
import type { ApiAddress } from '../stage/stage.ts'

export type DeviceAnswer = Status & { readonly freshness: Freshness }

/** The fields that a drill reads: its own idea of a status, as any client has one. */
const SHAPE = Compile(
  Type.Object({
    deviceId: Type.String(),
    rev: Type.Number(),
    reported: Type.Record(Type.String(), Type.Object({ at: Type.String() })),
    connectivity: Type.Object({ state: Type.String(), reason: Type.String(), session: Type.Number() }),
    counters: Type.Object({ messages: Type.Number(), duplicates: Type.Number() }),
    sequence: Type.Optional(Type.Object({ seen: Type.Array(Type.Array(Type.Number(), { minItems: 2 })) })),
    freshness: Type.Object({
      partition: Type.Number(),
      offset: Type.Number(),
      servedBy: Type.Enum(['owner', 'standby']),
    }),
  }),
)
const MAX_TOLD_CHARACTERS = 200

/** Parses the status of the device `id`. Throws an error of one line when the text is none. */
export function answerIn(text: string, id: string): DeviceAnswer {
  const answer = parsed(text)
  if (!isAnswer(answer)) throw new Error(`no status: ${text.slice(0, MAX_TOLD_CHARACTERS)}`)
  if (answer.deviceId !== id) throw new Error(`the status of ${answer.deviceId}`)
  return answer
}

function isAnswer(of: unknown): of is DeviceAnswer {
  return SHAPE.Check(of)
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

/** How one copy of a partition compares with the fold of the input. */
export interface CopyReading {
  readonly instance: string
  readonly partition: number
  readonly role: 'owner' | 'standby' | 'stored'
  readonly devices: number
  /** How many devices are missing, too many, or wrong; the first of them in words. */
  readonly differing: number
  readonly example: string | undefined
  /** Digest of all devices in order; equal digests are equal stores. */
  readonly digest: string
}

const PAGE = 1_000
/** Longest time for one answer of the API, ms. */
const ANSWER_MS = 30_000
/** Ids in one batch-get. */
const IDS = 500
/** How many devices are asked for one by one. */
const MAX_ALONE = 200

type Page = (after: string, limit: number) => Promise<readonly (readonly [id: string, value: Uint8Array])[]>

export interface Expected {
  readonly prefix: string
  readonly partitions: number
  /** JSON of each status by device id. */
  readonly statuses: ReadonlyMap<string, string>
}

/** Pages of the copy that a processor holds. */
export function copyPages(reader: PartitionReader, partition: number): Page {
  return async (after, limit) => {
    const { items } = await reader.list(partition, after, limit)
    return items.map(({ deviceId, status }) => [deviceId, status] as const)
  }
}

/** Pages of a store that no process has open. */
export function storePages(store: StateStore): Page {
  return (after, limit) => store.range(after, limit)
}

export async function readCopy(
  of: Pick<CopyReading, 'instance' | 'partition' | 'role'>,
  pages: Page,
  { prefix, partitions, statuses }: Expected,
): Promise<CopyReading> {
  const hash = createHash('sha256')
  const found = new Set<string>()
  let differing = 0
  let example: string | undefined
  const differs = (what: string): void => {
    differing++
    example ??= what
  }
  for (let after = prefix, more = true; more; ) {
    const page = await pages(after, PAGE)
    more = page.length > 0
    for (const [id, value] of page) {
      after = id
      if (!id.startsWith(`${prefix}-`)) {
        more = false
        break
      }
      const text = Buffer.from(value).toString()
      hash.update(`${id}\n${text}\n`)
      found.add(id)
      const wanted = statuses.get(id)
      if (wanted !== text) differs(`${id}: ${difference(text, wanted)}`)
    }
  }
  for (const id of statuses.keys()) {
    if (!found.has(id) && partitionOf(id, partitions) === of.partition) differs(`${id} is missing`)
  }
  return { ...of, devices: found.size, differing, example, digest: hash.digest('hex').slice(0, 12) }
}

/** The first partition that has fewer than `due` copies, in words; undefined: all have enough. */
export function lackingCopy(
  copies: readonly Pick<CopyReading, 'partition'>[],
  partitions: number,
  due: number,
): string | undefined {
  for (let partition = 0; partition < partitions; partition++) {
    const its = copies.filter((copy) => copy.partition === partition).length
    if (its < due) return `of partition ${partition} only ${its} of ${due} copies are whole`
  }
  return undefined
}

/** The API's answers by device id; devices that it does not know are left out. */
export async function readApi(api: ApiAddress, ids: readonly string[]): Promise<Map<string, DeviceAnswer>> {
  const answers = new Map<string, DeviceAnswer>()
  for (let from = 0; from < ids.length; from += IDS) {
    const response = await fetch(`${api.url}/v1/devices/batch-get`, {
      method: 'POST',
      headers: { ...api.headers, 'content-type': 'application/json' },
      body: JSON.stringify({ deviceIds: ids.slice(from, from + IDS) }),
      signal: AbortSignal.timeout(ANSWER_MS),
    })
    if (!response.ok) throw new Error(`batch-get: ${response.status} ${await response.text()}`)
    const { results } = (await response.json()) as { results: { found?: boolean }[] }
    for (const { found, ...answer } of results) {
      if (found !== true) continue
      if (!isAnswer(answer)) throw new Error(`batch-get: no status: ${JSON.stringify(answer)}`)
      answers.set(answer.deviceId, answer)
    }
  }
  return answers
}

/** The API's answers for some of the devices, asked for one by one. */
export async function readAlone({ url, headers }: ApiAddress, ids: readonly string[]): Promise<Alone> {
  const answers = new Map<string, DeviceAnswer>()
  const asked = sampleOf(ids)
  for (const id of asked) {
    const path = `/v1/devices/${id}`
    const response = await fetch(url + path, { headers, signal: AbortSignal.timeout(ANSWER_MS) })
    const text = await response.text()
    if (response.status === 404) continue
    if (!response.ok) throw new Error(`${path}: ${response.status} ${text}`)
    answers.set(id, answerIn(text, id))
  }
  return { asked, answers }
}

/** Enough ids to meet every partition, few enough to take a moment. */
function sampleOf(ids: readonly string[]): string[] {
  const step = Math.max(1, ids.length / MAX_ALONE)
  return Array.from({ length: Math.min(ids.length, MAX_ALONE) }, (_, i) => ids[Math.floor(i * step)] as string)
}

/** JSON of the status in an answer: without its freshness. */
export function statusIn(answer: DeviceAnswer): string {
  return JSON.stringify({ ...answer, freshness: undefined })
}

/** The first difference of two statuses, both given as JSON. */
export function difference(found: string | undefined, wanted: string | undefined): string {
  if (found === undefined) return 'it is missing'
  if (wanted === undefined) return 'it should not be there'
  return differenceAt('', JSON.parse(found), JSON.parse(wanted)) ?? 'the order of its members'
}

function differenceAt(path: string, found: unknown, wanted: unknown): string | undefined {
  if (typeof found === 'object' && typeof wanted === 'object' && found !== null && wanted !== null) {
    for (const name of new Set([...Object.keys(wanted), ...Object.keys(found)])) {
      const inner = differenceAt(
        `${path}/${name}`,
        (found as Record<string, unknown>)[name],
        (wanted as Record<string, unknown>)[name],
      )
      if (inner !== undefined) return inner
    }
    return undefined
  }
  if (Object.is(found, wanted)) return undefined
  return `${path} is ${JSON.stringify(found)}, and should be ${JSON.stringify(wanted)}`
}
