import { AsyncLocalStorage } from 'node:async_hooks'
import { syncBuiltinESMExports } from 'node:module'
import { nextTick } from 'node:process'
import promises from 'node:timers/promises'
import { seededRandom } from '../../simulators/random.ts'

/** A simulated process. What a dead one awaits never comes; what a frozen one awaits comes after it thaws. */
export interface Process {
  readonly name: string
  alive: boolean
  frozen: boolean
}

/** Something that can happen next. `onDeath`: what may still become of it when its process dies before it happens. */
interface Event {
  readonly process: Process
  readonly happen: () => void
  readonly onDeath: (() => void) | undefined
}

interface Timer {
  readonly process: Process
  readonly due: number
  readonly happen: () => void
}

const turn = globalThis.setImmediate
/** A turn of the event loop costs as much as a few steps. One is needed where Node tells of rejections that nobody handled. */
const STEPS_PER_TURN = 8
const current = new AsyncLocalStorage<Process>()

/**
 * Decides, by a seed, what happens next: of all that the simulated processes await, one thing at a time. All timers,
 * immediates and clocks of this process are its own while it runs, so that the same seed takes the same steps.
 */
export class Scheduler {
  readonly random: () => number
  /** Epoch ms. */
  now = Date.UTC(2026, 10, 24, 10)
  steps = 0
  /** What the test itself does is never delayed. */
  readonly driver: Process = { name: 'driver', alive: true, frozen: false }
  readonly #events: Event[] = []
  readonly #timers = new Set<Timer>()

  constructor(seed: number) {
    this.random = seededRandom(seed, 0)
  }

  /** An integer from 0 to `below` - 1. */
  integer(below: number): number {
    return Math.floor(this.random() * below)
  }

  chance(probability: number): boolean {
    return this.random() < probability
  }

  process(name: string): Process {
    return { name, alive: true, frozen: false }
  }

  /** Runs `work` as the process; what it awaits and sets off belongs to it. */
  within<T>(process: Process, work: () => T): T {
    return current.run(process, work)
  }

  /** Resolves when the scheduler comes to it: anything may happen before. At once for the driver. */
  park(onDeath?: () => void): Promise<void> {
    const process = this.#current
    if (process === this.driver) return Promise.resolve()
    return new Promise((resolve) => this.#push({ process, happen: resolve, onDeath }))
  }

  /** Resolves after `ms` of the simulated clock, or as soon as `signal` aborts. */
  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const timer = this.#after(ms, resolve)
      signal?.addEventListener('abort', () => this.#timers.delete(timer) && resolve(), { once: true })
    })
  }

  /** The process ends in the middle of what it does, as by kill -9: of its unanswered writes, each is done or not. */
  kill(process: Process): void {
    process.alive = false
    const events = this.#events.splice(0)
    for (const event of events) {
      if (event.process !== process) this.#events.push(event)
      else if (event.onDeath !== undefined && this.chance(0.5)) event.onDeath()
    }
    for (const timer of this.#timers) if (timer.process === process) this.#timers.delete(timer)
  }

  /** One thing happens, and all that follows from it until everybody waits again. */
  async step(): Promise<void> {
    this.steps++
    this.now += this.integer(3)
    const event = this.#next()
    if (event !== undefined) current.run(event.process, event.happen)
    await this.settle()
  }

  /** Until everybody waits: all of it is promises, so that nothing is left to do when these are through. */
  settle(): Promise<void> {
    const after = this.steps % STEPS_PER_TURN === 0 ? turn : nextTick
    return new Promise((resolve) => after(resolve))
  }

  /** Takes over the timers and clocks of this process. */
  install(): void {
    const after = (happen: (...rest: unknown[]) => void, ms = 0, ...rest: unknown[]) =>
      this.#after(ms, () => happen(...rest))
    const every = (happen: () => void, ms = 0) => {
      const handle = { unref: () => handle, ref: () => handle, timer: undefined as Timer | undefined }
      const arm = (): void => {
        handle.timer = this.#after(ms, () => {
          arm()
          happen()
        })
      }
      arm()
      return handle
    }
    const clear = (handle: Timer | { timer: Timer } | undefined) => {
      if (handle !== undefined) this.#timers.delete('timer' in handle ? handle.timer : handle)
    }
    const soon = (happen: (...rest: unknown[]) => void, ...rest: unknown[]) => {
      this.#push({ process: this.#current, happen: () => happen(...rest), onDeath: undefined })
    }
    Object.assign(globalThis, {
      setImmediate: soon,
      setTimeout: after,
      setInterval: every,
      clearTimeout: clear,
      clearInterval: clear,
    })
    Object.assign(promises, {
      setTimeout: (ms: number, _value: undefined, { signal }: { signal?: AbortSignal } = {}) => this.sleep(ms, signal),
      setImmediate: () => this.park(),
    })
    syncBuiltinESMExports()
    performance.now = () => this.now
  }

  get #current(): Process {
    return current.getStore() ?? this.driver
  }

  #push(event: Event): void {
    if (event.process.alive) this.#events.push(event)
  }

  #after(ms: number, happen: () => void) {
    const timer = {
      process: this.#current,
      due: this.now + ms,
      happen: () => {
        this.#timers.delete(timer)
        happen()
      },
      unref: () => timer,
      ref: () => timer,
    }
    if (timer.process.alive) this.#timers.add(timer)
    return timer
  }

  #next(): Event | Timer | undefined {
    const timer = this.#firstTimer()
    // Timers that are due compete with what else can happen.
    if (timer !== undefined && timer.due <= this.now && this.chance(0.2)) return timer
    const event = this.#takeEvent()
    if (event !== undefined || timer === undefined) return event
    this.now = Math.max(this.now, timer.due)
    return timer
  }

  #takeEvent(): Event | undefined {
    const events = this.#events
    let able = 0
    for (const { process } of events) if (!process.frozen) able++
    if (able === 0) return undefined
    let skip = this.integer(able)
    const at = events.findIndex(({ process }) => !process.frozen && skip-- === 0)
    return events.splice(at, 1)[0]
  }

  #firstTimer(): Timer | undefined {
    let first: Timer | undefined
    for (const timer of this.#timers) {
      if (!timer.process.frozen && (first === undefined || timer.due < first.due)) first = timer
    }
    return first
  }
}
