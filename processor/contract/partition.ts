/**
 * Where a key lives: the default partitioner of the Java Kafka client,
 * `(murmur2(keyBytes) & 0x7fffffff) % partitions` (org.apache.kafka.clients.producer.internals.BuiltInPartitioner).
 * ingest, processor and api all use this one function; golden vectors hold it to the Java client's.
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
  for (let i = 0; i < key.length; i++) {
    if (key.charCodeAt(i) > 0x7f) return murmur2Latin1(Buffer.from(key, 'utf8').toString('latin1'))
  }
  return murmur2Latin1(key)
}

function murmur2Latin1(bytes: string): number {
  const length = bytes.length
  const tail = length & ~3
  let h = SEED ^ length
  for (let i = 0; i < tail; i += 4) {
    let k =
      bytes.charCodeAt(i) |
      (bytes.charCodeAt(i + 1) << 8) |
      (bytes.charCodeAt(i + 2) << 16) |
      (bytes.charCodeAt(i + 3) << 24)
    k = Math.imul(k, M)
    k ^= k >>> R
    k = Math.imul(k, M)
    h = Math.imul(h, M) ^ k
  }
  const rest = length & 3
  if (rest === 3) h ^= bytes.charCodeAt(tail + 2) << 16
  if (rest >= 2) h ^= bytes.charCodeAt(tail + 1) << 8
  if (rest >= 1) h = Math.imul(h ^ bytes.charCodeAt(tail), M)
  h ^= h >>> 13
  h = Math.imul(h, M)
  h ^= h >>> 15
  return h
}
