import { type ServerResponse, STATUS_CODES } from 'node:http'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import type { Limits } from '../limits.ts'
import { blamed, PROBLEM_TYPE, ProblemError } from './problem.ts'
import type { NameOf } from './request.ts'

interface BrokenRequestError {
  readonly code?: string | undefined
  readonly rawPacket?: unknown
  /** Bytes of `rawPacket` before the mistake. */
  readonly bytesParsed?: number | undefined
}

/**
 * Answers a request that the HTTP parser refused or that took too long. There is only a socket, no response object.
 * While another request's answer is due the connection is cut, as Node does: a problem would pass for that answer.
 */
export function answerBrokenRequest(error: BrokenRequestError, socket: Duplex, nameOf: NameOf, limits: Limits): void {
  const response = responseOn(socket)
  const othersDue = response !== undefined && (response.headersSent || response.req.complete)
  if (error.code === 'ECONNRESET' || !socket.writable || isUnused(socket) || othersDue) {
    socket.destroy()
    return
  }
  // The headers of a request that broke before its body are not known.
  refuse(socket, brokenRequest(error, limits), nameOf(response?.req ?? { headers: {} }))
}

/** Browsers connect ahead of their requests. An unasked 408 would pass for the answer to the first of them. */
function isUnused(socket: Duplex & Partial<Pick<Socket, 'bytesRead'>>): boolean {
  return socket.bytesRead === 0
}

/** Node has no public name for it. Its own handler of such errors looks there, too. */
export function responseOn(socket: Duplex): ServerResponse | undefined {
  return (socket as { _httpMessage?: ServerResponse | null })._httpMessage ?? undefined
}

/** A valid request line with any token as its method (RFC 9112 section 3). */
const REQUEST_LINE = /^[\w!#$%&'*+.^`|~-]+ [\x21-\x7e]+ HTTP\/1\.\d\r?\n/

function brokenRequest({ code, rawPacket, bytesParsed = 0 }: BrokenRequestError, limits: Limits): ProblemError {
  if (code === 'HPE_HEADER_OVERFLOW') {
    const message = `have more than the ${limits.maxHeaderBytes} bytes that are allowed`
    const detail = `the request line and the headers ${message}`
    return new ProblemError('headers-too-large', detail, blamed('headers', message))
  }
  if (code === 'ERR_HTTP_REQUEST_TIMEOUT') {
    return new ProblemError('request-timeout', `the request did not arrive within ${limits.requestTimeoutMs} ms`)
  }
  if (code === 'HPE_INVALID_METHOD' && Buffer.isBuffer(rawPacket)) {
    const line = rawPacket.toString('latin1', rawPacket.lastIndexOf('\n', bytesParsed) + 1)
    // RFC 9110 section 9.1.
    if (REQUEST_LINE.test(line)) return new ProblemError('not-implemented', 'the method is none that is known here')
  }
  return ProblemError.invalid([{ field: 'request', message: 'is not valid HTTP/1.1' }])
}

/** Adds a date (RFC 9110 section 6.6.1) and `no-store`, because caches may keep some problems on their own. */
function refuse(socket: Duplex, problem: ProblemError, name: string): void {
  const body = JSON.stringify(problem.body())
  const head = [
    `HTTP/1.1 ${problem.status} ${STATUS_CODES[problem.status]}`,
    `date: ${new Date().toUTCString()}`,
    'cache-control: no-store',
    `content-type: ${PROBLEM_TYPE}`,
    `x-request-id: ${name}`,
    `content-length: ${Buffer.byteLength(body)}`,
    'connection: close',
  ]
  socket.end(`${head.join('\r\n')}\r\n\r\n${body}`, () => socket.destroy())
}
