import type { IncomingMessage } from 'node:http'
import { expect, it } from 'vitest'
import { hostFault } from '../../api/host.ts'

function asked(host: string): IncomingMessage {
  return { headers: { host }, rawHeaders: ['Host', host], httpVersion: '1.1' } as IncomingMessage
}

it.each(['', ':', 'a.b:8080', 'a_b', 'a,b', 'x%20y', '127.0.0.1:80', '[::1]:8080', '[fe80::1%25eth0]', '[v1.a:b]'])(
  '"%s" is a host',
  (host) => expect(hostFault(asked(host), false)).toBeUndefined(),
)

it.each(['a b', 'a/b', 'user@x', 'x:80a', 'x:80:80', 'http://x', '%zz', '[::1', '[1::2::3]', '[x]', '[]', 'ü'])(
  '"%s" is no host',
  (host) => expect(hostFault(asked(host), false)).toBe('is no host'),
)

it('whatever a probe says it is let pass, once', () => {
  const { headers, rawHeaders, httpVersion } = asked('outbound|8080||api.fleet')
  const twice = [...rawHeaders, ...rawHeaders]
  expect(hostFault({ headers, rawHeaders, httpVersion } as IncomingMessage, true)).toBeUndefined()
  expect(hostFault({ headers, rawHeaders: twice, httpVersion } as IncomingMessage, true)).toBe(
    'is given more than once',
  )
})
