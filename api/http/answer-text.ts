import type { FastifyRequest } from 'fastify'
import type { Freshness, Slice } from '../../processor/contract/query.ts'

export const JSON_TYPE = 'application/json; charset=utf-8'

/**
 * Adds members at the end of a stored status without parsing it. The bytes are the UTF-8 of one non-empty JSON object,
 * so the last byte is `}`.
 */
export function spliceStatus(status: Slice, members: string): string {
  return `${openStatus(status)},${members}}`
}

/** The JSON text of a stored status without its last `}`. */
export function openStatus({ buffer, start, end }: Slice): string {
  return buffer.toString('utf8', start, end - 1)
}

/** Joins texts and open statuses into one UTF-8 text, and copies only once, at the end. */
export class SplicedBytes {
  readonly #parts: (Slice | Buffer)[] = []
  #length = 0

  add(bytes: Buffer): void {
    this.#parts.push(bytes)
    this.#length += bytes.length
  }

  addOpenStatus(status: Slice): void {
    this.#parts.push(status)
    this.#length += status.end - status.start - 1
  }

  get length(): number {
    return this.#length
  }

  /** `whole` has `length` bytes. */
  copyTo(whole: Buffer): void {
    let at = 0
    for (const part of this.#parts) {
      if (Buffer.isBuffer(part)) {
        whole.set(part, at)
        at += part.length
      } else {
        at += part.buffer.copy(whole, at, part.start, part.end - 1)
      }
    }
  }
}

export function shownFreshness({ partition, offset, lag, servedBy }: Freshness): Omit<Freshness, 'changelog'> {
  return { partition, offset, lag, servedBy }
}

/** The header `Tidemark-Freshness`, for answers whose body has no room for it: a dictionary (RFC 9651 section 3.2). */
export function freshnessField({ partition, offset, lag, servedBy }: Freshness): string {
  return `partition=${partition}, offset=${offset}, lag=${lag}, served-by=${servedBy}`
}

/** The member `"freshness":{…}`. */
export function freshnessMember(freshness: Freshness): string {
  const { partition, offset, lag, servedBy } = freshness
  return `"freshness":{"partition":${partition},"offset":${offset},"lag":${lag},"servedBy":"${servedBy}"}`
}

/** The `Link` to the next page of `request`, from `cursor` on. */
export function nextPage({ query, routeOptions }: FastifyRequest, cursor: string): string {
  const parameters = new URLSearchParams(query as Record<string, string>)
  parameters.set('cursor', cursor)
  return `<${routeOptions.url}?${parameters.toString()}>; rel="next"`
}

/** Puts an entry last in `map` as the newest. Beyond `most` entries the oldest is forgotten. */
export function keepRecent<K, V>(map: Map<K, V>, key: K, value: V, most: number): void {
  map.delete(key)
  map.set(key, value)
  if (map.size > most) map.delete(map.keys().next().value as K)
}
