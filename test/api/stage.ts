import { pino } from 'pino'
import { Registry } from 'prom-client'
import { onTestFinished } from 'vitest'
import { type Api, type AppOptions, buildApp } from '../../api/app.ts'
import { RoutedReader } from '../../api/reader/reader.ts'
import type { DeviceWriter } from '../../processor/contract/query.ts'
import type { LetterReader } from '../../processor/contract/record.ts'
import { Fleet } from './fleet.ts'

export const silent = pino({ level: 'silent' })

/** For what writes nothing. */
export const noWriter: DeviceWriter = { write: () => Promise.reject(new Error('nothing is written here')) }

/** For where no dead letters are read. */
export const noLetters: LetterReader = {
  identity: 'none',
  partitions: 1,
  bounds: async () => ({ start: 0, end: 0 }),
  async *read() {},
}

export interface Stage extends AsyncDisposable {
  readonly api: Api
  readonly fleet: Fleet
  /** What /readyz lists. */
  readonly problems: string[]
}

/**
 * The application over a fleet of two members, four partitions, and no devices yet. It is closed when the test is over, or is
 * disposed of.
 */
export async function stage(options: Partial<AppOptions> = {}): Promise<Stage> {
  const fleet = new Fleet(4, ['a', 'b'])
  const problems: string[] = []
  const api = await buildApp({
    reader: routed(fleet),
    writer: noWriter,
    letters: noLetters,
    checks: async () => problems,
    registry: new Registry(),
    logger: silent,
    ...options,
  })
  onTestFinished(() => api.close())
  return { api, fleet, problems, [Symbol.asyncDispose]: () => api.close() }
}

/** `ownersMinAgeMs` 0: a test need not wait to see an owner that moved. */
export function routed(
  fleet: Fleet,
  options: Partial<ConstructorParameters<typeof RoutedReader>[0]> = {},
): RoutedReader {
  return new RoutedReader({
    partitions: fleet.partitions,
    owners: fleet.owners,
    connect: fleet.connect,
    logger: silent,
    now: Date.now,
    ownersMinAgeMs: 0,
    ...options,
  })
}
