import { once } from 'node:events'
import { Agent, get, type IncomingMessage } from 'node:http'
import { setImmediate, setTimeout as sleep } from 'node:timers/promises'
import { expect, it } from 'vitest'
import { Stack } from './stack.ts'

/** How often the balancer looks at /readyz, ms: well within the notice that a stop gives. */
const LOOK_MS = 50
const NOTICE_SECONDS = 2
/** For how long a look counts, ms: the notice of a stop that it did not see lasts as long again. */
const LOOK_LASTS_MS = (NOTICE_SECONDS * 1_000) / 2

/** Requests over kept connections to those that were ready at the last look, in turn. */
class Balancer {
  readonly #stacks: readonly Stack[]
  readonly #agent = new Agent({ keepAlive: true })
  /** When the look began that found it ready. */
  readonly #ready = new Map<Stack, number>()
  readonly failures: unknown[] = []
  answered = new Map<Stack, number>()
  #turn = 0
  #over = false

  constructor(stacks: readonly Stack[]) {
    this.#stacks = stacks
  }

  isReady(stack: Stack): boolean {
    return performance.now() - (this.#ready.get(stack) ?? -Infinity) < LOOK_LASTS_MS
  }

  async run(connections: number): Promise<void> {
    await Promise.all([
      ...this.#stacks.map((stack) => this.#look(stack)),
      ...Array.from({ length: connections }, () => this.#ask()),
    ])
    this.#agent.destroy()
  }

  end(): void {
    this.#over = true
  }

  async #look(stack: Stack): Promise<void> {
    while (!this.#over) {
      const began = performance.now()
      if ((await stack.readyz()) === 200) this.#ready.set(stack, began)
      else this.#ready.delete(stack)
      await sleep(LOOK_MS)
    }
  }

  async #ask(): Promise<void> {
    while (!this.#over) {
      const ready = this.#stacks.filter((stack) => this.isReady(stack))
      const stack = ready[this.#turn++ % ready.length]
      if (stack === undefined) await setImmediate()
      else await this.#get(stack)
    }
  }

  async #get(stack: Stack): Promise<void> {
    try {
      const request = get({ port: stack.httpPort, host: '127.0.0.1', path: '/v1/devices', agent: this.#agent })
      const [response] = (await once(request, 'response')) as [IncomingMessage]
      await response.resume().toArray()
      if (response.statusCode === 200) this.answered.set(stack, (this.answered.get(stack) ?? 0) + 1)
      else this.failures.push(response.statusCode)
    } catch (error) {
      this.failures.push(error)
    }
  }
}

it('restarts one process after the other without a failed request, behind a balancer that looks at /readyz', async () => {
  const env = { HTTP_DRAIN_SECONDS: String(NOTICE_SECONDS) }
  await using first = await Stack.start({ env })
  await using second = await Stack.start({ env })
  const stacks = [first, second]
  const balancer = new Balancer(stacks)
  const running = balancer.run(8)
  for (const stack of stacks) {
    await expect.poll(() => stacks.every((each) => balancer.isReady(each)), { timeout: 20_000 }).toBe(true)
    expect(await stack.stop()).toEqual({ code: 0, signal: null })
    expect(balancer.isReady(stack)).toBe(false)
    balancer.answered.clear()
    await stack.restart()
    // It is asked again.
    await expect.poll(() => balancer.answered.get(stack) ?? 0, { timeout: 20_000 }).toBeGreaterThan(10)
  }
  balancer.end()
  await running
  expect(balancer.failures).toEqual([])
}, 120_000)
