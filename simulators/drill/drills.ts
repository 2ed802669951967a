import type { Random } from '../random.ts'
import type { Stage } from './stage/stage.ts'

/** What a script does to one process. */
export type Verb = 'start' | 'stop' | 'kill' | 'freeze' | 'thaw' | 'cut' | 'heal' | 'wipe'

/** The words of a script. Each one that waits rejects when the drill is stopped. */
export interface Vocabulary extends Pick<Stage, Verb> {
  /** All processors of the drill, whether they are up or not. */
  readonly processors: readonly string[]
  readonly random: Random
  /** The processor that owns most partitions now. */
  owner(): string
  /** All devices lose their connections at once. */
  storm(): Promise<void>
  /** Load and nothing else, for this share of the drill's time. */
  run(share: number): Promise<void>
  runFor(ms: number): Promise<void>
  /** Resolves when the group is stable and `target` owns nothing. */
  lost(target: string): Promise<void>
  /** Resolves when every partition has a running owner and its standbys. */
  steady(): Promise<void>
  /** Milliseconds that are left of the drill's time. */
  left(): number
}

export interface Drill {
  readonly about: string
  /** It can be played on the embedded log, where all roles are one process. */
  readonly embedded?: true
  /** Fewest processors that it needs; default 1. */
  readonly least?: number
  /** API processes; more than one stand behind a balancer. Default 1. */
  readonly apis?: number
  /** How many processors are up when it begins; a negative number counts from all of them. Default: all. */
  readonly first?: number
  /** Share of the messages that go to one partition. */
  readonly hot?: number
  /** Bad payloads a second. */
  readonly poison?: number
  script(drill: Vocabulary): Promise<void>
}

const TABLE = {
  watch: {
    about: 'nothing is disturbed: load, readers and checks only',
    embedded: true,
    script: (drill) => drill.run(1),
  },
  join: {
    about: 'a processor joins a cluster under load',
    least: 2,
    async script(drill) {
      const last = drill.processors.at(-1) as string
      await drill.run(0.35)
      await drill.start(last)
      await drill.steady()
      await drill.run(0.35)
    },
    first: -1,
  },
  leave: {
    about: 'a processor is stopped with SIGTERM, and does not come back',
    least: 2,
    async script(drill) {
      await drill.run(0.35)
      await drill.stop(drill.owner())
      await drill.run(0.5)
    },
  },
  kill: {
    about: 'a processor is killed with SIGKILL, and started again',
    embedded: true,
    async script(drill) {
      const victim = drill.owner()
      await drill.run(0.35)
      await drill.kill(victim)
      await drill.run(0.3)
      await drill.start(victim)
      await drill.run(0.2)
    },
  },
  freeze: {
    about: 'a processor stands still (SIGSTOP) until others have its partitions, then wakes: the zombie',
    least: 2,
    async script(drill) {
      const victim = drill.owner()
      await drill.run(0.3)
      await drill.freeze(victim)
      await drill.lost(victim)
      await drill.run(0.2)
      await drill.thaw(victim)
      await drill.run(0.3)
    },
  },
  roll: {
    about: 'every process of every role is restarted in turn, with SIGTERM',
    least: 2,
    apis: 2,
    async script(drill) {
      await drill.run(0.15)
      for (const target of [...drill.processors, 'api-1', 'api-2', 'ingest']) {
        await drill.stop(target)
        await drill.start(target)
        await drill.steady()
        await drill.run(0.05)
      }
      await drill.run(0.15)
    },
  },
  scale: {
    about: 'one processor, then all of them, then one again',
    least: 2,
    first: 1,
    async script(drill) {
      const [, ...others] = drill.processors
      await drill.run(0.2)
      for (const other of others) await drill.start(other)
      await drill.steady()
      await drill.run(0.3)
      for (const other of others) {
        await drill.stop(other)
        await drill.steady()
      }
      await drill.run(0.2)
    },
  },
  restore: {
    about: 'a processor that lost its stores is killed while it restores them',
    least: 2,
    async script(drill) {
      const victim = drill.owner()
      await drill.run(0.4)
      for (let i = 0; i < 2; i++) {
        await drill.kill(victim)
        await drill.wipe(victim)
        await drill.start(victim)
      }
      await drill.steady()
      await drill.run(0.3)
    },
  },
  wipe: {
    about: 'a processor comes back without its store folder',
    embedded: true,
    async script(drill) {
      const victim = drill.owner()
      await drill.run(0.35)
      await drill.kill(victim)
      await drill.wipe(victim)
      await drill.start(victim)
      await drill.steady()
      await drill.run(0.35)
    },
  },
  broker: {
    about: 'Kafka is stopped and started, then killed and started',
    async script(drill) {
      await drill.run(0.25)
      await drill.stop('kafka')
      await drill.start('kafka')
      await drill.steady()
      await drill.run(0.25)
      await drill.kill('kafka')
      await drill.start('kafka')
      await drill.steady()
      await drill.run(0.25)
    },
  },
  cut: {
    about: 'the network between one processor and Kafka is cut, and heals',
    least: 2,
    async script(drill) {
      const [victim] = drill.processors as [string]
      await drill.run(0.25)
      await drill.cut(victim)
      await drill.lost(victim)
      await drill.run(0.15)
      await drill.heal(victim)
      await drill.run(0.3)
    },
  },
  ingest: {
    about: 'the gateway is killed under load, and started again',
    async script(drill) {
      await drill.run(0.35)
      await drill.kill('ingest')
      await drill.run(0.1)
      await drill.start('ingest')
      await drill.run(0.4)
    },
  },
  api: {
    about: 'API processes behind a round-robin balancer are killed in turn',
    apis: 2,
    async script(drill) {
      for (const target of ['api-1', 'api-2']) {
        await drill.run(0.2)
        await drill.kill(target)
        await drill.run(0.1)
        await drill.start(target)
      }
      await drill.run(0.2)
    },
  },
  hot: {
    about: 'four fifths of the messages go to one partition',
    embedded: true,
    hot: 0.8,
    script: (drill) => drill.run(1),
  },
  poison: {
    about: 'bad payloads in the stream',
    embedded: true,
    poison: 50,
    script: (drill) => drill.run(1),
  },
  storm: {
    about: 'all devices lose their connections, and come back at once',
    embedded: true,
    async script(drill) {
      for (let i = 0; i < 3; i++) {
        await drill.run(0.25)
        await drill.storm()
      }
      await drill.run(0.25)
    },
  },
  soak: {
    about: 'random disturbances, one after the other, for the whole time',
    embedded: true,
    async script(drill) {
      await drill.runFor(SOAK_HEAD_MS)
      while (drill.left() > SOAK_TAIL_MS) await disturb(drill)
    },
  },
} as const satisfies Record<string, Drill>

export type DrillName = keyof typeof TABLE

export const DRILLS: Readonly<Record<DrillName, Drill>> = TABLE

/** Time of a soak before its first disturbance, and after its last one. */
const SOAK_HEAD_MS = 3_000
const SOAK_TAIL_MS = 10_000

/** Plays one random disturbance and its repair. */
async function disturb(drill: Vocabulary): Promise<void> {
  const { random } = drill
  const victim = drill.owner()
  const some = (): Promise<void> => drill.runFor(2_000 + random() * 6_000)
  const alone = drill.processors.length === 1
  const choices: (() => Promise<void>)[] = [
    async () => {
      await drill.kill(victim)
      if (!alone) await some()
      await drill.start(victim)
    },
    async () => {
      await drill.kill(victim)
      await drill.wipe(victim)
      await drill.start(victim)
    },
    async () => {
      await drill.stop(victim)
      await drill.start(victim)
    },
    () => drill.storm(),
  ]
  if (!alone) {
    choices.push(
      async () => {
        await drill.freeze(victim)
        await drill.lost(victim)
        await drill.thaw(victim)
      },
      async () => {
        await drill.kill('ingest')
        await drill.start('ingest')
      },
      async () => {
        await drill.kill('kafka')
        await drill.start('kafka')
      },
    )
  }
  await (choices[Math.floor(random() * choices.length)] as () => Promise<void>)()
  await drill.steady()
  await some()
}
