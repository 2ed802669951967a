import { once } from 'node:events'
import pino from 'pino'
import { afterEach, expect, test, vi } from 'vitest'
import { Network } from '../../../../processor/log/kafka/protocol/broker.ts'
import { WireWriter } from '../../../../processor/log/kafka/protocol/wire.ts'
import { answerTo, scriptedBroker } from './scripted-broker.ts'

const HEARTBEAT = 12
const THROTTLE_MS = 1000
const HOUR_MS = 3_600_000
const heartbeat = { groupId: 'group', groupGenerationId: 1, memberId: 'member' }

afterEach(() => vi.useRealTimers())

test('a connection that a quota has wait sends again in the same time when the clock is set back', async () => {
  vi.useFakeTimers({ toFake: ['Date', 'performance', 'setTimeout', 'clearTimeout'] })
  // With Heartbeat 2 it is the client that waits (KIP-219).
  const knows = new WireWriter().int16(0).int32(1).int16(HEARTBEAT).int16(0).int16(2).int32(0).finish()
  const throttled = new WireWriter().int32(THROTTLE_MS).int16(0).finish()
  const broker = await scriptedBroker(knows, (socket, request) => socket.write(answerTo(request, throttled)))
  const network = new Network('test', {}, pino({ enabled: false }))
  try {
    const { requests } = await network.connect(broker.host, broker.port)
    await requests.heartbeat(heartbeat)
    const sent = vi.fn()
    const next = requests.heartbeat(heartbeat).then(sent)
    await vi.advanceTimersByTimeAsync(THROTTLE_MS / 2)
    vi.setSystemTime(Date.now() - HOUR_MS)
    expect(sent).not.toHaveBeenCalled()
    await vi.advanceTimersByTimeAsync(THROTTLE_MS)
    await next
  } finally {
    network.close()
    broker.server.close()
    await once(broker.server, 'close')
  }
})
