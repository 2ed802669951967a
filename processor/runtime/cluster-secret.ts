import { createHmac, timingSafeEqual } from 'node:crypto'

/** A signature is good for this long, ms, before and after the time in it: clocks of processes differ. */
export const GOOD_FOR_MS = 30_000

const SIGNATURE = /^Tidemark time=(\d{13}), digest=([0-9a-f]{64})$/

/** What is signed of a request. */
interface Signed {
  readonly method: string
  readonly path: string
  readonly body: string
}

/** The value of `Authorization`, which shows that a process holds the secret and does not show the secret (RFC 2104). */
export function sign(secret: string, request: Signed, now: number): string {
  return `Tidemark time=${now}, digest=${digest(secret, request, now).toString('hex')}`
}

/** False for another request than the one that was signed, and for one that was signed long ago. `now`: epoch ms. */
export function isSigned(secret: string, request: Signed, authorization: string | undefined, now: number): boolean {
  const [, time, hex] = SIGNATURE.exec(authorization ?? '') ?? []
  if (time === undefined || hex === undefined || Math.abs(now - Number(time)) > GOOD_FOR_MS) return false
  return timingSafeEqual(Buffer.from(hex, 'hex'), digest(secret, request, Number(time)))
}

function digest(secret: string, { method, path, body }: Signed, time: number): Buffer {
  return createHmac('sha256', secret).update(`${time} ${method} ${path}\n${body}`).digest()
}
