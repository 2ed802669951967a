import type { KafkaLog } from '../../../processor/log/kafka/kafka-log.ts'
import { pause, within } from '../../../processor/runtime/pause.ts'
import type { Cluster } from '../../../simulators/cluster.ts'
import { readRecords } from '../../../simulators/drill/stage/evidence.ts'
import { freePorts } from '../../../simulators/program.ts'
import { seededRandom } from '../../../simulators/random.ts'
import { ResendingDevice } from '../../system/resending-device.ts'
import { type Api, Asker } from './asker.ts'
import { Clients, QUERIES } from './clients.ts'
import { Follower } from './follower.ts'
import { Gateway } from './gateway.ts'
import { History } from './history.ts'
import { Nemesis } from './nemesis.ts'
import { States } from './states.ts'

const REPORTING = ['reporting-0', 'reporting-1', 'reporting-2']
/** Answers, or messages of each device, that are progress. */
const PROGRESS = 20
const POLL_MS = 10
/** For what was sent and is not acknowledged yet. */
const QUIET_MS = 60_000

/** Concurrent clients of a cluster on Kafka, who disturbs it meanwhile, and the history of it. */
export class Experiment implements AsyncDisposable {
  readonly history = new History()
  readonly devices: readonly ResendingDevice[]
  readonly followers: readonly Follower[]
  readonly asker: Asker
  readonly clients: Clients
  readonly nemesis: Nemesis
  readonly #gateway: Gateway
  readonly #seed: number
  readonly #ending = new AbortController()

  private constructor(cluster: Cluster, partitions: number, apis: readonly [Api, Api], seed: number) {
    this.#seed = seed
    this.asker = new Asker(this.history, partitions)
    this.nemesis = new Nemesis(cluster, apis, partitions, this)
    this.#gateway = new Gateway(cluster.mqttPort, seededRandom(seed, 0))
    this.devices = REPORTING.map((id) => new ResendingDevice(id, cluster.mqttPort, 0, 1))
    this.clients = new Clients(this.asker, this.#gateway, apis, REPORTING)
    this.followers = [{}, { q: QUERIES[3] as string }, { deviceId: this.clients.devices[0] as string }].map(
      (of) => new Follower(apis, this.history, of),
    )
  }

  /** Resolves when all roles are ready: processors of these names, two API processes, and one ingest. */
  static async open(
    cluster: Cluster,
    instances: readonly string[],
    partitions: number,
    seed: number,
  ): Promise<Experiment> {
    const [second] = (await freePorts(1)) as [number]
    const apis = [cluster.httpPort, second].map((port): Api => ({ port, life: 0 })) as [Api, Api]
    const experiment = new Experiment(cluster, partitions, apis, seed)
    try {
      await experiment.nemesis.start(instances)
    } catch (error) {
      await experiment[Symbol.asyncDispose]()
      throw error
    }
    for (const device of experiment.devices) device.start()
    return experiment
  }

  /** Until it is enough, or patience ends. Rejects when a process that is disturbed has ended by itself. */
  async run(enough: () => boolean, how: 'disturbed' | 'in peace', patienceMs: number): Promise<void> {
    const { signal } = this.#ending
    const over = AbortSignal.any([signal, AbortSignal.timeout(patienceMs)])
    const random = (stream: number) => seededRandom(this.#seed, stream)
    await Promise.all([
      ...([0, 1, 0, 1] as const).map((home, i) => this.clients.writer(home, random(10 + i), signal)),
      ...([0, 1, 0] as const).map((home, i) => this.clients.reader(home, random(20 + i), signal)),
      ...(how === 'disturbed'
        ? [this.nemesis.disturbProcessors(random(30), signal), this.nemesis.disturbEdges(random(31), signal)]
        : []),
      until(enough, over).then(() => this.#ending.abort()),
    ])
  }

  /** Resolves when nobody has anything to say any more. Rejects when a process has ended by itself. */
  async quiet(): Promise<void> {
    this.nemesis.assertAlive()
    const finished = Promise.all(this.devices.map((device) => device.finish()))
    await within(finished, QUIET_MS, () => {
      throw new Error('devices wait for acknowledgements for too long')
    })
    const gateway = this.#gateway
    await until(() => gateway.heard === gateway.said, AbortSignal.timeout(QUIET_MS))
    if (gateway.heard < gateway.said)
      throw new Error(`the gateway has ${gateway.heard} of ${gateway.said} acknowledged`)
    await gateway[Symbol.asyncDispose]()
  }

  /** See Nemesis. */
  async progress(api: Api | undefined, signal: AbortSignal): Promise<void> {
    const { answered } = this.asker
    const sum = () => {
      if (api !== undefined) return answered.get(api) ?? 0
      return [...answered.values()].reduce((all, count) => all + count, 0)
    }
    const goal = sum() + PROGRESS
    await until(() => sum() >= goal, signal)
  }

  async heard(signal: AbortSignal): Promise<void> {
    const goals = this.devices.map(({ acknowledged }) => acknowledged + PROGRESS)
    await until(() => this.devices.every(({ acknowledged }, i) => acknowledged >= (goals[i] as number)), signal)
  }

  /** What the log came to. What the changelog tells is noted as any follower's. */
  async states(log: KafkaLog): Promise<States> {
    const states = new States()
    const last = new Map<string, string>()
    const [follower, q, connection] = ['changelog', undefined, 0]
    for (let index = 0; index < log.identity.partitions; index++) {
      await readRecords(log, 'telemetry', index, (record) => states.add(index, record))
      await readRecords(log, 'status', index, ({ key, value }) => {
        const deviceId = key as string
        if (value === null) {
          last.delete(deviceId)
          return
        }
        const text = JSON.stringify(JSON.parse(Buffer.from(value).toString()))
        last.set(deviceId, text)
        this.history.told.push({ follower, q, connection, event: 'change', deviceId, text })
      })
    }
    this.history.holdings.push({ holder: follower, q, deviceId: undefined, devices: last })
    return states
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#ending.abort()
    for (const follower of this.followers) follower[Symbol.dispose]()
    await Promise.all(this.devices.map((device) => device.destroy()))
    await this.#gateway[Symbol.asyncDispose]()
  }
}

async function until(condition: () => boolean, signal: AbortSignal): Promise<void> {
  while (!condition() && !signal.aborted) await pause(POLL_MS, signal)
}
