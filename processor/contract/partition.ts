/**
 * The partition of a key, by the default partitioner of the Java Kafka client: `(murmur2(keyBytes) & 0x7fffffff) %
 * partitions` (org.apache.kafka.clients.producer.internals.BuiltInPartitioner). ingest, processor and api all use this
 * function, and golden vectors hold it to the Java client.
 */
export function partitionOf(key: string, partitions: number): number {
  return (murmur2(key) & 0x7fffffff) % partitions
}

const SEED = 0x9747b28c
const M = 0x5bd1e995
const R = 24

/** 32-bit MurmurHash2 of the UTF-8 bytes of `key`, signed, as `org.apache.kafka.common.utils.Utils.murmur2` gives it. */
export function murmur2(key: string): number {
  // Device ids are ASCII, where char codes are the UTF-8 bytes: hashing them in place needs no copy.
  return hash(key, 0x7f) ?? (hash(Buffer.from(key, 'utf8').toString('latin1'), 0xff) as number)
}

/** Hashes the char codes of `bytes`. Undefined when one has bits outside `mask`. */
function hash(bytes: string, mask: number): number | undefined {
  const length = bytes.length
  const tail = length & ~3
  let h = SEED ^ length
  let seen = 0
  for (let i = 0; i < tail; i += 4) {
    const a = bytes.charCodeAt(i)
    const b = bytes.charCodeAt(i + 1)
    const c = bytes.charCodeAt(i + 2)
    const d = bytes.charCodeAt(i + 3)
    seen |= a | b | c | d
    let k = a | (b << 8) | (c << 16) | (d << 24)
    k = Math.imul(k, M)
    k ^= k >>> R
    k = Math.imul(k, M)
    h = Math.imul(h, M) ^ k
  }
  let last = 0
  for (let i = length - 1; i >= tail; i--) {
    const code = bytes.charCodeAt(i)
    seen |= code
    last = (last << 8) | code
  }
  if ((seen & ~mask) !== 0) return undefined
  if (length > tail) h = Math.imul(h ^ last, M)
  h ^= h >>> 13
  h = Math.imul(h, M)
  h ^= h >>> 15
  return h
}
