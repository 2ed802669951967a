import { type ChildProcess, fork } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import pino from 'pino'
import { Registry } from 'prom-client'
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest'
import { KafkaLog } from '../../processor/log/kafka/kafka-log.ts'
import { KafkaClient } from '../../simulators/drill/stage/kafka-client.ts'
import type { Kafka } from '../../simulators/kafka/kafka.ts'
import { freePorts } from '../../simulators/program.ts'
import { read } from '../contract/log-member.ts'
import { text } from '../contract/log-records.ts'
import { kafkaMissing, startKafka } from './kafka.ts'

/** Half of the members' session timeout: what happens within it is not the session's doing. */
const PATIENCE_MS = 30_000
const PARTITIONS = [0, 1, 2, 3]

interface Event {
  readonly listens?: string
  readonly owns?: number
  readonly lost?: number
}

class MemberProcess {
  readonly child: ChildProcess
  readonly owned = new Set<number>()
  losses = 0
  /** Resolves when one with a port of its own listens there: it joins when it is told to. */
  readonly listens: Promise<void>

  constructor(broker: string, prefix: string, instance: string, port?: number) {
    const own = port === undefined ? [] : [String(port)]
    this.child = fork(new URL('member.ts', import.meta.url), [broker, prefix, instance, ...own])
    const listening = Promise.withResolvers<void>()
    this.listens = listening.promise
    this.child.on('message', ({ listens, owns, lost }: Event) => {
      if (listens !== undefined) listening.resolve()
      if (lost !== undefined) {
        this.owned.delete(lost)
        this.losses++
      }
      if (owns !== undefined) this.owned.add(owns)
    })
  }

  join(): void {
    this.child.send('join')
  }

  holds(count: number): Promise<void> {
    return vi.waitFor(() => expect(this.owned.size).toBe(count), { timeout: PATIENCE_MS, interval: 5 })
  }
}

describe.skipIf(kafkaMissing !== undefined)('a member that dies', { timeout: PATIENCE_MS * 6 }, () => {
  let kafka: Kafka
  const processes: MemberProcess[] = []

  beforeAll(async () => {
    kafka = await startKafka()
  }, 180_000)

  afterEach(() => {
    for (const { child } of processes.splice(0)) child.kill('SIGKILL')
  })

  afterAll(() => kafka[Symbol.asyncDispose]())

  async function pair(): Promise<[MemberProcess, MemberProcess, string]> {
    const prefix = `death-${randomUUID()}`
    const start = (instance: string): MemberProcess => {
      const member = new MemberProcess(kafka.brokers, prefix, instance)
      processes.push(member)
      return member
    }
    const a = start('a')
    await a.holds(4)
    const b = start('b')
    await Promise.all([a.holds(2), b.holds(2)])
    return [a, b, prefix]
  }

  /** Each commit wrote one number more than the last: a commit lost or made twice would show. */
  async function verify(prefix: string): Promise<void> {
    await using log = await KafkaLog.open({
      brokers: [kafka.brokers],
      prefix,
      group: prefix,
      partitions: 4,
      logger: pino({ level: 'silent' }),
      registry: new Registry(),
    })
    for (const index of PARTITIONS) {
      const { end } = await log.bounds({ topic: 'status', index })
      const numbers = (await read(log, 'status', index, 0, end)).map((r) => Number(text(r)))
      expect(numbers).toEqual(numbers.map((_, i) => i + 1))
    }
  }

  test('by SIGKILL is missed by its peers long before its session ends', async () => {
    const [a, b, prefix] = await pair()
    a.child.kill('SIGKILL')
    await b.holds(4)
    await verify(prefix)
  })

  test('by SIGKILL, and is started again, has its share back', async () => {
    const [a, b, prefix] = await pair()
    a.child.kill('SIGKILL')
    await b.holds(4)
    const again = new MemberProcess(kafka.brokers, prefix, 'a')
    processes.push(again)
    await Promise.all([again.holds(2), b.holds(2)])
    b.child.kill('SIGKILL')
    again.child.kill('SIGKILL')
    // Nobody is left to miss them: the next run of an instance evicts its former self, and whoever is not there.
    const alone = new MemberProcess(kafka.brokers, prefix, 'a')
    processes.push(alone)
    await alone.holds(4)
    await verify(prefix)
  })

  test('by SIGKILL with all the others, and is started again with them at the same endpoints, has its share back', async () => {
    const prefix = `death-${randomUUID()}`
    const ports = await freePorts(3)
    const start = async (): Promise<MemberProcess[]> => {
      const started = ports.map((port, i) => new MemberProcess(kafka.brokers, prefix, `m${i}`, port))
      processes.push(...started)
      await Promise.all(started.map(({ listens }) => listens))
      return started
    }
    const share = (members: readonly MemberProcess[]): Promise<void> => {
      const shares = () => members.map(({ owned }) => owned.size).sort((x, y) => x - y)
      return vi.waitFor(() => expect(shares()).toEqual([1, 1, 2]), { timeout: PATIENCE_MS, interval: 5 })
    }
    const killed = await start()
    for (const member of killed) member.join()
    await share(killed)
    const ends = killed.map(({ child }) => once(child, 'exit'))
    for (const { child } of killed) child.kill('SIGKILL')
    await Promise.all(ends)

    const again = await start()
    const [first, ...others] = again as [MemberProcess, ...MemberProcess[]]
    first.join()
    // It had its former self leave, and waits for the others' former selves: the group tells no user data meanwhile.
    await using client = await KafkaClient.open({ brokers: [kafka.brokers] })
    const stable = async () => (await client.group(prefix)).stable
    await vi.waitFor(async () => expect(await stable()).toBe(false), { timeout: PATIENCE_MS, interval: 5 })
    for (const other of others) other.join()
    await share(again)
    await verify(prefix)
  })

  test('by SIGSTOP is missed; woken, it finds itself out, drops all, and has its share back', async () => {
    const [a, b, prefix] = await pair()
    const { losses } = a
    a.child.kill('SIGSTOP')
    await b.holds(4)
    a.child.kill('SIGCONT')
    // Until then it counts as the owner of what it held before.
    await vi.waitFor(() => expect(a.losses).toBe(losses + 2), { timeout: PATIENCE_MS, interval: 5 })
    await Promise.all([a.holds(2), b.holds(2)])
    await verify(prefix)
  })

  test('in order hands over', async () => {
    const [a, b, prefix] = await pair()
    a.child.kill('SIGTERM')
    await b.holds(4)
    await vi.waitFor(() => expect(a.child.exitCode).toBe(0), { timeout: PATIENCE_MS })
    await verify(prefix)
  })
})
