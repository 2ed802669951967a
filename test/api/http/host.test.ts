import type { IncomingMessage } from 'node:http'
import { expect, it } from 'vitest'
import { hostFault } from '../../../api/http/request.ts'

function asked(host: string): IncomingMessage {
  return { headers: { host }, rawHeaders: ['Host', host], httpVersion: '1.1' } as IncomingMessage
}

it.each(['', ':', 'a.b:8080', 'a_b', 'a,b', 'x%20y', '127.0.0.1:80', '[::1]:8080', '[fe80::1%25eth0]', '[v1.a:b]'])(
  '"%s" is a host',
  (host) => expect(hostFault(asked(host))).toBeUndefined(),
)

it.each(['a b', 'a/b', 'user@x', 'x:80a', 'x:80:80', 'http://x', '%zz', '[::1', '[1::2::3]', '[x]', '[]', 'ü'])(
  '"%s" is no host',
  (host) => expect(hostFault(asked(host))).toBe('is no host'),
)
