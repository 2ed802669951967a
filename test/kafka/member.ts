import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import pino from 'pino'
import { Registry } from 'prom-client'
import { KafkaLog } from '../../processor/log/kafka/kafka-log.ts'
import { aborted } from '../../processor/runtime/pause.ts'
import { read } from '../contract/log-member.ts'
import { text } from '../contract/log-records.ts'

/**
 * A member in a process of its own: commits for every partition it owns, and tells its parent what begins and ends. With a
 * port of its own it joins when it is told to.
 */
const [broker, prefix, instance, port] = process.argv.slice(2) as [string, string, string, string?]
const say = (event: object): boolean => process.send?.(event) ?? false
const server = createServer((_, response) => response.end(JSON.stringify({ instance })))
await new Promise<void>((resolve) => server.listen(Number(port ?? 0), '127.0.0.1', resolve))
const log = await KafkaLog.open({
  brokers: [broker],
  prefix,
  group: prefix,
  partitions: 4,
  standbys: 1,
  sessionTimeoutMs: 60_000,
  logger: pino({ level: process.env.TEST_LOG_LEVEL ?? 'silent' }),
  registry: new Registry(),
})
if (port !== undefined) {
  const told = once(process, 'message')
  say({ listens: port })
  await told
}
const leaving = new AbortController()
process.once('SIGTERM', () => leaving.abort())
await log.join(
  {
    instance,
    endpoint: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    positions: () => new Map(),
    async active(claim, signal) {
      const { input: next, changelogEnd } = claim.start
      // The last record of a commit is the one before its end.
      const [last] = await read(log, 'status', claim.partition, Math.max(0, changelogEnd - 1), changelogEnd)
      const first = last === undefined ? 1 : Number(text(last)) + 1
      let count = first
      try {
        do {
          const value = Buffer.from(`${count}`)
          await claim.commit({ changelog: [{ key: 'k', value, timestamp: 1 }], deadLetters: [], next })
          if (count++ === first) say({ owns: claim.partition })
        } while (!signal.aborted)
      } finally {
        say({ lost: claim.partition })
      }
    },
    standby: (_, signal) => aborted(signal),
  },
  leaving.signal,
)
await log[Symbol.asyncDispose]()
if (port !== undefined) process.disconnect()
server.close()
server.closeAllConnections()
