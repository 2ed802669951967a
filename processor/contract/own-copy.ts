/**
 * A copy in memory of its own, for what is kept. A view keeps all of what it was read with, and what `Buffer.from` copies
 * to is a part of Node's pool: each such copy may keep 64 KiB, however short it is.
 */
export function ownCopy(bytes: Uint8Array): Buffer {
  const copy = Buffer.allocUnsafeSlow(bytes.length)
  copy.set(bytes)
  return copy
}
