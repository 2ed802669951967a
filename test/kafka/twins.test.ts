import { randomUUID } from 'node:crypto'
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest'
import { aborted } from '../../processor/runtime/pause.ts'
import type { Kafka } from '../../simulators/kafka/kafka.ts'
import { freePorts } from '../../simulators/program.ts'
import type { RoleHooks, TestMember } from '../contract/log-member.ts'
import { kafkaMissing, startKafka } from './kafka.ts'
import { ListeningMember } from './listening-member.ts'

const PARTITIONS = 2
/** More than the 500 ms in which a process must take a connection, and half of what its peers bear: the rest is for a slow machine. */
const BUSY_MS = 600
const DEADLINE = { timeout: 20_000, interval: 10 }

describe.skipIf(kafkaMissing !== undefined)('of two processors with one name', { timeout: 120_000 }, () => {
  let kafka: Kafka
  const members: ListeningMember[] = []

  beforeAll(async () => {
    kafka = await startKafka()
  }, 180_000)

  afterEach(async () => {
    await Promise.all(members.splice(0).map((member) => member[Symbol.asyncDispose]()))
  })

  afterAll(() => kafka?.[Symbol.asyncDispose]())

  async function join(
    group: string,
    port: number,
    hooks?: RoleHooks,
    busy?: () => Promise<void>,
  ): Promise<ListeningMember> {
    const member = new ListeningMember('a', port, hooks, busy)
    members.push(member)
    return member.joinGroup(kafka.brokers, group, PARTITIONS)
  }

  test('one that is only busy is not taken for dead by the other', async () => {
    const group = `twins-${randomUUID()}`
    const [one, two] = (await freePorts(2)) as [number, number]
    const veteran = await join(group, one, {}, pauseWhileBusy)
    await holdsAll(veteran)
    const twin = await join(group, two)
    await refused(twin, veteran)
    expect(veteran.events.sort()).toEqual(['active 0', 'active 1'])
    expect(veteran.outcome).toBe('in')
  })

  test('one that was frozen until the other had its name has it back', async () => {
    const group = `twins-${randomUUID()}`
    // The larger member id is the veteran's: by that alone it would go.
    const ports = (await freePorts(2)).sort((x, y) => (String(x) < String(y) ? -1 : 1)) as [number, number]
    const woken = Promise.withResolvers<void>()
    const active = async (_: unknown, signal: AbortSignal) => {
      await aborted(signal)
      woken.resolve()
    }
    const veteran = await join(group, ports[1], { active }, () => woken.promise)
    await holdsAll(veteran)
    const twin = await join(group, ports[0])
    await woken.promise
    await refused(twin, veteran)
    await holdsAll(veteran)
    expect(veteran.outcome).toBe('in')
  })
})

function pauseWhileBusy(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, BUSY_MS))
}

function holdsAll({ claims }: TestMember): Promise<void> {
  return vi.waitFor(() => expect(claims.size).toBe(PARTITIONS), DEADLINE)
}

function refused(twin: TestMember, { endpoint }: TestMember): Promise<void> {
  return vi.waitFor(() => {
    expect(twin.outcome).toMatchObject({ code: 'INVALID_CONFIGURATION' })
    expect((twin.outcome as Error).message).toContain(`a live processor at ${endpoint} has this name`)
  }, DEADLINE)
}
