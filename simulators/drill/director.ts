import { reasonOf } from '../../processor/contract/errors.ts'
import { pause } from '../../processor/runtime/pause.ts'
import { type Random, seededRandom } from '../random.ts'
import { readApi } from './checks/copies.ts'
import type { Verb, Vocabulary } from './drills.ts'
import type { Traffic } from './load/traffic.ts'
import type { DrillOptions } from './options.ts'
import type { Mark, Recorder } from './report/journal.ts'
import type { Observer } from './stage/observer.ts'
import type { Stage } from './stage/stage.ts'

const POLL_MS = 20

export interface DirectorParts {
  readonly options: Pick<DrillOptions, 'seconds' | 'seed' | 'patience'>
  readonly stage: Stage
  readonly observer: Observer
  readonly recorder: Recorder
  readonly traffic: Traffic
  /** All devices, in the order in which the ledger counts them. */
  readonly ids: readonly string[]
  readonly onMark: (mark: Mark) => void
  /** Aborts when the drill is stopped. */
  readonly signal: AbortSignal
}

/** Plays the script of a drill: it disturbs the stage, records each disturbance, and waits for what the script waits for. */
export class Director implements Vocabulary {
  readonly processors: readonly string[]
  readonly random: Random
  readonly #parts: DirectorParts
  /** Processors that were frozen or cut off until others had their partitions, and then came back. */
  readonly zombies: string[] = []
  #began = 0

  constructor(parts: DirectorParts) {
    this.#parts = parts
    this.processors = parts.stage.processors
    this.random = seededRandom(parts.options.seed, 0)
  }

  owner(): string {
    const { observer, stage } = this.#parts
    if (stage.processors.length === 1) return stage.processors[0] as string
    const counts = new Map<string, number>()
    for (const { instance } of observer.assigned.holders.values()) {
      if (stage.up.has(instance)) counts.set(instance, (counts.get(instance) ?? 0) + 1)
    }
    const [most] = [...counts].sort(([a, x], [b, y]) => y - x || a.localeCompare(b))
    if (most === undefined) throw new Error('no processor owns anything')
    return most[0]
  }

  readonly start = (target: string): Promise<void> => this.#do('start', target)
  readonly stop = (target: string): Promise<void> => this.#do('stop', target)
  readonly kill = (target: string): Promise<void> => this.#do('kill', target)
  readonly freeze = (target: string): Promise<void> => this.#do('freeze', target)
  readonly cut = (target: string): Promise<void> => this.#do('cut', target)
  readonly wipe = (target: string): Promise<void> => this.#do('wipe', target)

  thaw(target: string): Promise<void> {
    this.zombies.push(target)
    return this.#do('thaw', target)
  }

  heal(target: string): Promise<void> {
    this.zombies.push(target)
    return this.#do('heal', target)
  }

  storm(): Promise<void> {
    return this.#play('storm', 'devices', async () => this.#parts.traffic.storm())
  }

  run(share: number): Promise<void> {
    return this.runFor(share * this.#parts.options.seconds * 1000)
  }

  async runFor(ms: number): Promise<void> {
    const { signal } = this.#parts
    await pause(ms, signal)
    signal.throwIfAborted()
  }

  lost(target: string): Promise<void> {
    const { observer } = this.#parts
    return this.#until(`others have what ${target} owned`, () => {
      const { stable, holders } = observer.assigned
      if (!stable) return 'the group rebalances'
      return [...holders.values()].some(({ instance }) => instance === target) ? `${target} still owns some` : undefined
    })
  }

  steady(): Promise<void> {
    return this.#until('every partition has its owner and its standbys', () => this.unsteady)
  }

  /** Starts the clock of the drill. */
  begin(): void {
    this.#began = this.#parts.recorder.elapsed
  }

  left(): number {
    return this.#began + this.#parts.options.seconds * 1000 - this.#parts.recorder.elapsed
  }

  /**
   * Resolves when owners and standbys have applied the telemetry up to `ends`. Where only the owners know the ends, they may
   * not have seen the last records yet: await `applied` first.
   */
  quiet(ends: readonly number[] | undefined): Promise<void> {
    const { observer, stage } = this.#parts
    const changelog: (number | undefined)[] = []
    const since = performance.now()
    return this.#until('all is applied, by owners and standbys', () => {
      const unsteady = this.unsteady
      if (unsteady !== undefined) return unsteady
      for (let partition = 0; partition < stage.partitions; partition++) {
        const copy = observer.owner(partition, since)?.copy
        if (copy === undefined) return `the owner of partition ${partition} does not answer`
        const behind = ends === undefined ? copy.lag : (ends[partition] ?? 0) - copy.offset
        if (behind === undefined) return `the owner of partition ${partition} does not know where its input ends`
        if (behind > 0) return `partition ${partition} has ${behind} records to apply`
        // Others may go on writing: the standbys must reach the end that the changelog had when the owner was done.
        const end = (changelog[partition] ??= copy.changelogOffset)
        if (observer.standbys(partition, since).length < observer.standbys(partition).length)
          return 'not all standbys answer'
        const late = observer.standbys(partition, since).find(({ changelogOffset }) => changelogOffset < end)
        if (late !== undefined) return `the standby of partition ${partition} on ${late.instance} is behind`
      }
      return undefined
    })
  }

  /** Ends of the telemetry partitions, asked for until Kafka answers; undefined where only the owners know them. */
  async ends(): Promise<readonly number[] | undefined> {
    const { signal, options, stage } = this.#parts
    const deadline = performance.now() + options.patience * 1000
    for (;;) {
      try {
        return await stage.view.ends()
      } catch (error) {
        signal.throwIfAborted()
        if (performance.now() > deadline)
          throw new Unsettled(`the ends of the log: ${oneLine(error)}`, { cause: error })
        await pause(POLL_MS, signal)
      }
    }
  }

  /** Resolves when the API shows every acknowledged message. */
  async applied(): Promise<void> {
    const { ids, traffic, stage } = this.#parts
    const { ledger } = traffic
    let behind: string | undefined = 'the API was not asked yet'
    const ending = new AbortController()
    const poll = async (): Promise<void> => {
      while (!ending.signal.aborted) {
        try {
          const answers = await readApi(stage.api, ids)
          const late = ids.findIndex(
            (id, i) => ledger.last[i] !== 0 && answers.get(id)?.sequence?.seen.at(-1)?.[1] !== ledger.last[i],
          )
          behind = late === -1 ? undefined : `${ids[late]} is not`
        } catch (error) {
          behind = `the API does not answer: ${oneLine(error)}`
        }
        await pause(POLL_MS, ending.signal)
      }
    }
    const polling = poll()
    try {
      await this.#until('what is acknowledged is applied', () => behind)
    } finally {
      ending.abort()
      await polling
    }
  }

  /** Why the cluster is not steady: a partition lacks its owner or a standby; undefined: it is steady. */
  get unsteady(): string | undefined {
    const { observer, stage } = this.#parts
    if (!observer.assigned.stable) return 'the group rebalances'
    const attached = stage.processors.length === 0
    const standbys = stage.standbysDue(observer.assigned.members.length)
    for (let partition = 0; partition < stage.partitions; partition++) {
      const owner = observer.owner(partition)
      if (owner === undefined) return `nobody owns partition ${partition}`
      if (owner.copy?.state !== 'running') return `partition ${partition} is not running on ${owner.instance}`
      const running = observer.standbys(partition).filter(({ state }) => state === 'running').length
      if (running < standbys) {
        const way = attached ? ` (STANDBYS=${stage.standbys}: set it as the cluster's processors have it)` : ''
        return `partition ${partition} has ${running} of ${standbys} standbys${way}`
      }
    }
    return undefined
  }

  #do(verb: Verb, target: string): Promise<void> {
    return this.#play(verb, target, () => this.#parts.stage[verb](target))
  }

  async #play(verb: string, target: string, action: () => Promise<void>): Promise<void> {
    const { recorder, signal, onMark } = this.#parts
    signal.throwIfAborted()
    const mark: Mark = { at: recorder.elapsed, verb, target }
    recorder.add(recorder.marks, mark)
    onMark(mark)
    try {
      await action()
      mark.doneAt = recorder.elapsed
    } catch (error) {
      signal.throwIfAborted()
      throw new Undone(`${verb} ${target} failed`, error)
    }
  }

  /** Polls until `unmet` gives undefined; otherwise it gives the reason to wait. */
  async #until(what: string, unmet: () => string | undefined): Promise<void> {
    const { signal, options } = this.#parts
    const deadline = performance.now() + options.patience * 1000
    for (;;) {
      const why = unmet()
      if (why === undefined) return
      if (performance.now() > deadline)
        throw new Unsettled(`after ${options.patience} s it is not so that ${what}: ${why}`)
      await pause(POLL_MS, signal)
      signal.throwIfAborted()
    }
  }
}

/** A disturbance failed. */
export class Undone extends Error {
  constructor(what: string, cause: unknown) {
    super(what, { cause })
  }
}

/** The cluster did not do in time what was waited for: a finding, not a failure of the drill. */
export class Unsettled extends Error {}

const MAX_LINE = 300

/** The message of an error on one line of at most 300 characters. */
export function oneLine(error: unknown): string {
  return reasonOf(error).replaceAll(/\s+/g, ' ').trim().slice(0, MAX_LINE)
}
