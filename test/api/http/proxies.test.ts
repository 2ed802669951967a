import { expect, test } from 'vitest'
import { trustedProxies } from '../../../api/http/request.ts'
import { ConfigurationError } from '../../../processor/contract/errors.ts'

test.each(['loopback', '10.0.0.1', '10.0.0.0/8,fd00::/8,::1', '0.0.0.0/1'])('%s are proxies', (list) => {
  expect(trustedProxies(list)).toBe(list)
})

test.each(['true', '0.0.0.0/0', '::/0', '10.0.0.1/33', '10.0.0.0/8/8', 'loopback, 10.0.0.1', 'proxy.example', ','])(
  '%s is refused',
  (list) => {
    expect(() => trustedProxies(list)).toThrow(ConfigurationError)
    expect(() => trustedProxies(list)).toThrow(/^HTTP_TRUSTED_PROXIES: "/)
  },
)
