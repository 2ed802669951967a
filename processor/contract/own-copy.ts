/**
 * A copy in memory of its own, for what is kept. A view keeps all of what it was read with, and what `Buffer.from` copies
 * to is a part of Node's pool: each such copy may keep 64 KiB, however short it is.
 */
export function ownCopy(bytes: Uint8Array): Buffer {
  const copy = Buffer.allocUnsafeSlow(bytes.length)
  copy.set(bytes)
  return copy
}

/** The same of a device id: one that was cut out of a topic keeps all of the topic, which may have 64 KiB. */
export function ownDeviceId(deviceId: string): string {
  return Buffer.from(deviceId, 'latin1').toString('latin1')
}

/** The same bytes as a Buffer: `Buffer.from(bytes)` would copy them. */
export function viewOf(bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}
