/** CRC-32C (Castagnoli, RFC 3720 appendix B.4), eight bytes a step. node:zlib has only the other CRC-32. */
const POLYNOMIAL = 0x82f63b78
/** Eight tables of 256 in one. Masked indices keep every read inside it. */
const TABLES = tables()

/** Of the bytes from `start` to before `end`, unsigned. */
export function crc32c(bytes: Uint8Array, start = 0, end = bytes.length): number {
  let crc = -1
  let at = start
  while (at < end && ((bytes.byteOffset + at) & 3) !== 0) crc = step(crc, bytes[at++] as number)
  // Whole words are little-endian on every machine that Node has prebuilt RocksDB for.
  const words = new Int32Array(bytes.buffer, bytes.byteOffset + at, (end - at) >> 2)
  const pairs = words.length & ~1
  for (let i = 0; i < pairs; i += 2) {
    const low = (words[i] as number) ^ crc
    const high = words[i + 1] as number
    crc =
      (TABLES[1792 + (low & 0xff)] as number) ^
      (TABLES[1536 + ((low >>> 8) & 0xff)] as number) ^
      (TABLES[1280 + ((low >>> 16) & 0xff)] as number) ^
      (TABLES[1024 + (low >>> 24)] as number) ^
      (TABLES[768 + (high & 0xff)] as number) ^
      (TABLES[512 + ((high >>> 8) & 0xff)] as number) ^
      (TABLES[256 + ((high >>> 16) & 0xff)] as number) ^
      (TABLES[high >>> 24] as number)
  }
  at += pairs * 4
  while (at < end) crc = step(crc, bytes[at++] as number)
  return ~crc >>> 0
}

function step(crc: number, byte: number): number {
  return (TABLES[(crc ^ byte) & 0xff] as number) ^ (crc >>> 8)
}

function tables(): Int32Array {
  const all = new Int32Array(8 * 256)
  for (let i = 0; i < 256; i++) {
    let crc = i
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ POLYNOMIAL : crc >>> 1
    all[i] = crc
  }
  for (let i = 256; i < all.length; i++) {
    const crc = all[i - 256] as number
    all[i] = (all[crc & 0xff] as number) ^ (crc >>> 8)
  }
  return all
}
