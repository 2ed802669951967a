import { once } from 'node:events'
import { createServer, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { RemoteReaders } from '../../../api/reader/remote.ts'
import type { PartitionReader } from '../../../processor/contract/query.ts'
import { COPIES_PATH, MAX_IDS_OF_REQUEST } from '../../../processor/contract/query-wire.ts'
import { silent } from '../stage.ts'

const ANSWER_WITHIN_MS = 800
const MAX_UNDER_WAY = 4
const MAX_WAITING_IDS = 16_384
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

/** It answers reads when it is told to; the clock stands still. */
describe('a processor that does not answer', () => {
  let server: Server
  let readers: RemoteReaders
  let reader: PartitionReader
  let reads: ServerResponse[]

  beforeEach(async () => {
    reads = []
    server = createServer((request, response) => {
      if (request.url === COPIES_PATH) response.end('[]')
      else reads.push(response)
    }).listen(0, '127.0.0.1')
    await once(server, 'listening')
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] })
    readers = new RemoteReaders({ secret: undefined, logger: silent, answerWithinMs: ANSWER_WITHIN_MS })
    const endpoint = `127.0.0.1:${(server.address() as AddressInfo).port}`
    reader = readers.connect({ instance: 'a', endpoint })
  })

  afterEach(() => {
    vi.useRealTimers()
    readers[Symbol.dispose]()
    server.closeAllConnections()
    server.close()
  })

  const ask = (ids: number) => {
    const answer = reader.getMany(
      0,
      Array.from({ length: ids }, () => 'truck-1'),
    )
    answer.catch(() => undefined)
    return answer
  }

  /** As many reads are under way as may be. */
  async function busy(): Promise<void> {
    void ask(MAX_UNDER_WAY * MAX_IDS_OF_REQUEST)
    while (reads.length < MAX_UNDER_WAY) await once(server, 'request')
  }

  it('has no more ids wait for it than so many', async () => {
    await busy()
    void ask(MAX_WAITING_IDS)
    await expect(ask(1)).rejects.toThrow('too many reads')
  })

  it('is sent no more, once it is late, before it has answered what it has', async () => {
    await busy()
    const waiting = ask(1)
    await vi.advanceTimersByTimeAsync(ANSWER_WITHIN_MS)
    await reader.copies()
    expect(reads).toHaveLength(MAX_UNDER_WAY)
    const next = once(server, 'request')
    reads[0]?.writeHead(500).end()
    await next
    reads[MAX_UNDER_WAY]?.writeHead(500).end()
    await expect(waiting).rejects.toThrow('status 500')
  })
})
