import { TidemarkError } from '../../processor/contract/errors.ts'
import type { Owner } from '../../processor/contract/query.ts'
import type { Owners } from './owners.ts'

/** Between two looks at who could be asked, ms. */
const LOOK_MS = 200

export interface Found<T> {
  readonly answer: T
  readonly by: Owner
}

export interface LastResort<T> {
  readonly partition: number
  readonly owners: Owners
  /** Asks a copy, and waits for it until the time is over. */
  readonly ask: (copy: Owner) => Promise<T>
  /** Takes what those say that cannot answer. */
  readonly failures: TidemarkError[]
}

/**
 * Asks all copies at once, and waits for the first answer for as long as one is on its way: by new maps, since a partition whose
 * owner stands still is another's soon. Resolves with undefined when nobody is left who may answer.
 */
export async function lastResort<T>({
  partition,
  owners,
  ask,
  failures,
}: LastResort<T>): Promise<Found<T> | undefined> {
  const { promise: first, resolve, reject } = Promise.withResolvers<Found<T>>()
  const underWay = new Set<string>()
  const put = async (by: Owner): Promise<void> => {
    underWay.add(by.endpoint)
    try {
      resolve({ answer: await ask(by), by })
    } catch (error) {
      if (!(error instanceof TidemarkError)) return reject(error)
      failures.push(error)
    }
    underWay.delete(by.endpoint)
  }
  for (;;) {
    const { active, standbys = [] } = (await owners.current()).get(partition) ?? {}
    for (const copy of active === undefined ? standbys : [active, ...standbys]) {
      if (!underWay.has(copy.endpoint)) void put(copy)
    }
    const found = await Promise.race([first, pause(LOOK_MS)])
    if (found !== undefined) return found
    if (underWay.size === 0) return undefined
    owners.hint()
  }
}

function pause(ms: number): Promise<undefined> {
  return new Promise((resolve) => {
    setTimeout(() => resolve(undefined), ms)
  })
}
