import type { FastifyRequest } from 'fastify'
import type { Freshness, Slice } from '../../processor/contract/query.ts'

/** Of an answer that is put together as text. */
export const JSON_TYPE = 'application/json; charset=utf-8'

/**
 * The JSON text of a stored status with more members at its end. The status is never parsed: its bytes are the UTF-8 of
 * one non-empty JSON object, so its last byte is `}`.
 */
export function spliceStatus(status: Slice, members: string): string {
  return `${openStatus(status)},${members}}`
}

/** The JSON text of a stored status without its last `}`. */
export function openStatus({ buffer, start, end }: Slice): string {
  return buffer.toString('utf8', start, end - 1)
}

/** Of texts, and of statuses without their last `}`, one text as UTF-8. Nothing is copied but once, at its end. */
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

/** The members that an answer shows. */
export function shownFreshness({ partition, offset, lag, servedBy }: Freshness): Omit<Freshness, 'changelog'> {
  return { partition, offset, lag, servedBy }
}

/** `Tidemark-Freshness`, of an answer whose body has no room for it: a dictionary (RFC 9651 section 3.2). */
export function freshnessField({ partition, offset, lag, servedBy }: Freshness): string {
  return `partition=${partition}, offset=${offset}, lag=${lag}, served-by=${servedBy}`
}

/** `"freshness":{…}`, the member of an answer that says how fresh it is. */
export function freshnessMember(freshness: Freshness): string {
  const { partition, offset, lag, servedBy } = freshness
  return `"freshness":{"partition":${partition},"offset":${offset},"lag":${lag},"servedBy":"${servedBy}"}`
}

/** The `Link` to what `request` asks for, from `cursor` on. */
export function nextPage({ query, routeOptions }: FastifyRequest, cursor: string): string {
  const parameters = new URLSearchParams(query as Record<string, string>)
  parameters.set('cursor', cursor)
  return `<${routeOptions.url}?${parameters.toString()}>; rel="next"`
}

/** Puts an entry last in `map`, as the one that was used last; of more than `most` the one used longest ago is forgotten. */
export function keepRecent<K, V>(map: Map<K, V>, key: K, value: V, most: number): void {
  map.delete(key)
  map.set(key, value)
  if (map.size > most) map.delete(map.keys().next().value as K)
}
