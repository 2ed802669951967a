import { type IncomingMessage, type Server, type ServerResponse, STATUS_CODES } from 'node:http'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import type { Limits } from '../limits.ts'
import { blamed, PROBLEM_TYPE, ProblemError } from './problem.ts'
import type { NameOf } from './request.ts'

/** The connections on which a request is broken, while those before it are answered. */
const broken = new WeakSet<Duplex>()

/** `bytesParsed` of `rawPacket` were no mistake. */
interface BrokenRequestError {
  readonly code?: string | undefined
  readonly rawPacket?: unknown
  readonly bytesParsed?: number | undefined
}

/** A request that the HTTP parser refused, or that took too long: there is no response object, only the socket. */
export function answerBrokenRequest(error: BrokenRequestError, socket: Duplex, nameOf: NameOf, limits: Limits): void {
  if (error.code === 'ECONNRESET' || !socket.writable || isUnused(socket)) {
    socket.destroy()
    return
  }
  // What still comes cannot be read any more, and is told of again and again.
  if (broken.has(socket)) return
  const problem = brokenRequest(error, limits)
  const response = responseOn(socket)
  if (response?.req.complete !== true) return endWith(problem, socket, nameOf)
  broken.add(socket)
  response.once('close', () => answerAfter(problem, socket, nameOf))
}

/** Browsers connect ahead of their requests: a 408 that nothing asked for would pass for the answer to the first of them. */
function isUnused(socket: Duplex & Partial<Pick<Socket, 'bytesRead'>>): boolean {
  return socket.bytesRead === 0
}

/** Answers in the order of the requests (RFC 9112 section 9.3.2): bytes within another answer would be taken for part of it. */
function answerAfter(problem: ProblemError, socket: Duplex, nameOf: NameOf): void {
  if (!socket.writable) return
  const response = responseOn(socket)
  if (response?.req.complete === true) response.once('close', () => answerAfter(problem, socket, nameOf))
  else endWith(problem, socket, nameOf)
}

/** It is the request that is broken that may be answered already, before all of it has come. */
function endWith(problem: ProblemError, socket: Duplex, nameOf: NameOf): void {
  const response = responseOn(socket)
  if (response?.headersSent === true) socket.destroy()
  // Of one that is broken before its body, no header can be known.
  else refuse(socket, problem, nameOf(response?.req ?? { headers: {} }))
}

/** Node has no public name for it; its own handler of such errors looks there, too. */
export function responseOn(socket: Duplex): ServerResponse | undefined {
  return (socket as { _httpMessage?: ServerResponse | null })._httpMessage ?? undefined
}

/** A line that is all right but for its method, which is any token (RFC 9112 section 3). */
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

function refuse(socket: Duplex, problem: ProblemError, name: string, headers = ''): void {
  const body = JSON.stringify(problem.body())
  // As on other answers: a date must be there (RFC 9110 section 6.6.1), and caches may keep some of these without being told to.
  const general = `date: ${new Date().toUTCString()}\r\ncache-control: no-store\r\ncontent-type: ${PROBLEM_TYPE}\r\n`
  const head = `HTTP/1.1 ${problem.status} ${STATUS_CODES[problem.status]}\r\n${general}`
  const tail = `x-request-id: ${name}\r\ncontent-length: ${Buffer.byteLength(body)}\r\nconnection: close\r\n\r\n${body}`
  socket.end(`${head}${headers}${tail}`, () => socket.destroy())
}

/** What Node would answer by itself, with an empty body or by closing the connection. */
export function answerOddities(server: Server, nameOf: NameOf): void {
  // No CONNECT: this is no proxy (RFC 9110 section 9.3.6).
  server.on('connect', (request: IncomingMessage, socket: Duplex) => {
    socket.on('error', () => socket.destroy())
    const problem = new ProblemError('method-not-allowed', 'CONNECT is not allowed here')
    refuse(socket, problem, nameOf(request), 'allow: GET, HEAD\r\n')
  })
  // An expectation other than 100-continue may be ignored (RFC 9110 section 10.1.1).
  server.on('checkExpectation', (request: IncomingMessage, response: ServerResponse) => {
    server.emit('request', request, response)
  })
}
