import { expect, it } from 'vitest'
import { RemoteReaders } from '../../api/remote.ts'
import { silent } from './stage.ts'

const MAX_READERS = 1_024

it('of too many processors the one asked longest ago is forgotten, with its silence', () => {
  using readers = new RemoteReaders({ secret: undefined, logger: silent })
  const connect = (n: number) => readers.connect({ instance: `p${n}`, endpoint: `127.0.0.1:${n}` })
  const lasting = connect(0)
  const asked = Array.from({ length: MAX_READERS - 1 }, (_, i) => connect(i + 1))
  expect(connect(0)).toBe(lasting)
  connect(MAX_READERS)
  expect(connect(0)).toBe(lasting)
  expect(connect(2)).toBe(asked[1])
  expect(connect(1)).not.toBe(asked[0])
})
