import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { Cluster } from '../../simulators/cluster.ts'
import type { Kafka } from '../../simulators/kafka/kafka.ts'
import { seededRandom } from '../../simulators/random.ts'
import type { DeviceAnswer } from '../system/answers.ts'
import { ResendingDevice } from '../system/resending-device.ts'
import { checkAnswer, verify } from './invariants.ts'
import { kafkaMissing, startKafka } from './kafka.ts'
import { STEPS, type Step } from './steps.ts'

/** At least so many, and every step at least once; TIDEMARK_KILLS for more, or for a quick look. */
const KILLS = Number(process.env.TIDEMARK_KILLS ?? 100)
const SEED = Number(process.env.TIDEMARK_SEED ?? 1)
const FAULTY = fileURLToPath(new URL('../faults/faulty-processor.ts', import.meta.url))
const PARTITIONS = 4
const DEVICES = 8
const WINDOW = 2
const PADDING_BYTES = 500
/** A step that is not reached by then waits for another turn, and the process dies wherever it is. */
const IMPATIENCE_MS = 15_000
const PATIENCE = { timeout: 20_000, interval: 20 }
const LIMIT_MS = 60_000 + KILLS * 10_000

describe.skipIf(kafkaMissing !== undefined)('kill -9 of processors under load', { timeout: LIMIT_MS }, () => {
  let kafka: Kafka
  let cluster: Cluster
  const devices: ResendingDevice[] = []

  beforeAll(async () => {
    kafka = await startKafka()
    cluster = await Cluster.open(kafka.brokers, PARTITIONS)
  }, 180_000)

  afterAll(async () => {
    await Promise.all(devices.map((device) => device.destroy()))
    await cluster?.[Symbol.asyncDispose]()
    await kafka?.[Symbol.asyncDispose]()
  })

  /** Looks at the answers until told to stop; that nobody can answer is no fault while everybody dies. */
  async function look(signal: AbortSignal): Promise<number> {
    let looks = 0
    for (let i = 0; !signal.aborted; i++) {
      const response = await cluster.get(`/v1/devices/device-${i % DEVICES}`)
      const answer = (await response.json()) as DeviceAnswer
      if (response.status === 503) continue
      expect(response.status).toBe(200)
      checkAnswer(answer)
      looks++
    }
    return looks
  }

  test(`at every step of commit and takeover, ${KILLS} times, loses and doubles nothing`, async () => {
    const random = seededRandom(SEED, 0)
    const [first] = await Promise.all([cluster.processor('a'), cluster.ingest(), cluster.api()])
    for (let i = 0; i < DEVICES; i++) {
      devices.push(new ResendingDevice(`device-${i}`, cluster.mqttPort, PADDING_BYTES, WINDOW))
    }
    for (const device of devices) device.start()
    await vi.waitFor(() => devices.forEach((device) => expect(device.acknowledged).toBeGreaterThan(200)), PATIENCE)
    await vi.waitFor(async () => {
      for (const { id } of devices) expect((await cluster.get(`/v1/devices/${id}`)).status).toBe(200)
    }, PATIENCE)
    await first.kill()

    const kills = new Map<Step, number>()
    let total = 0
    const due: Step[] = []
    const nextStep = (): Step => {
      if (due.length === 0) due.push(...STEPS)
      return due.splice(Math.floor(random() * due.length), 1)[0] as Step
    }
    const lifeOf = new Map<string, Promise<void>>()
    /** The life of one that must be the only one, while there is such: nobody else begins another before it ends. */
    const alone = new Set<Promise<void>>()
    const lives = async (instance: string, other: string): Promise<void> => {
      while (total < KILLS || kills.size < STEPS.length) {
        while (alone.size > 0) await Promise.all(alone)
        const step = nextStep()
        const life = Promise.withResolvers<void>()
        lifeOf.set(instance, life.promise)
        if (step === 'restoring') {
          // Where another has whole copies that one is the owner: it is awaited, and this one begins with none.
          alone.add(life.promise)
          await lifeOf.get(other)
          await rm(join(cluster.dataDir, instance), { recursive: true, force: true })
        }
        const passage = isRare(step) ? 1 : 1 + Math.floor(random() * 30)
        const program = cluster.processorIn(FAULTY, instance, { FAULT: `${step}@${passage}` })
        const timer = setTimeout(() => program.child.kill('SIGKILL'), IMPATIENCE_MS)
        const exit = await program.exited
        clearTimeout(timer)
        expect(exit, `${step}@${passage}: ${program.stderr}`).toEqual({ code: null, signal: 'SIGKILL' })
        total++
        if (program.stderr.includes(`killed at ${step}`)) kills.set(step, (kills.get(step) ?? 0) + 1)
        else due.push(step)
        alone.delete(life.promise)
        life.resolve()
      }
    }
    const looking = new AbortController()
    const looks = look(looking.signal)
    const began = performance.now()
    await Promise.race([Promise.all([lives('a', 'b'), lives('b', 'a')]), looks])
    const seconds = ((performance.now() - began) / 1000).toFixed()

    const [a, b] = await Promise.all([cluster.processor('a'), cluster.processor('b')])
    looking.abort()
    await Promise.all(devices.map((device) => device.finish()))
    const looked = await looks
    expect(looked).toBeGreaterThan(0)
    const messages = devices.reduce((sum, { made }) => sum + made, 0)
    const where = STEPS.map((step) => `${step} ${kills.get(step)}`).join(', ')
    process.stdout.write(
      `${total} kills in ${seconds} s (${where}); ${messages} messages, ${looked} answers looked at\n`,
    )
    await verify(cluster, devices, { a, b })
  })
})

/** Passed a few times in a life at most. */
function isRare(step: Step): boolean {
  return ['fence sent', 'holder fenced', 'claim taken', 'standby promoted', 'restoring'].includes(step)
}
