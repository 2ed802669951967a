import { ConfigurationError } from '../../processor/contract/errors.ts'
import type { Stage } from './stage.ts'

const ANSWER_MS = 5_000

/** A cluster that somebody else runs: nothing of it is started or ended. */
export class AttachedStage implements Stage {
  readonly mqtt: Stage['mqtt']
  readonly api: string
  readonly partitions: number
  readonly standbys: number
  readonly processors: readonly string[] = []
  readonly falls: Stage['falls'] = []
  readonly up: ReadonlySet<string> = new Set()
  readonly left: readonly string[] = []

  private constructor({ mqtt, api, partitions, standbys }: Pick<Stage, 'mqtt' | 'api' | 'partitions' | 'standbys'>) {
    this.mqtt = mqtt
    this.api = api
    this.partitions = partitions
    this.standbys = standbys
  }

  /** Rejects with ConfigurationError when the API does not answer. */
  static async open(of: Pick<Stage, 'mqtt' | 'api' | 'partitions' | 'standbys'>): Promise<AttachedStage> {
    try {
      const response = await fetch(`${of.api}/readyz`, { signal: AbortSignal.timeout(ANSWER_MS) })
      if (!response.ok) throw new Error(`/readyz says ${response.status}: ${(await response.text()).slice(0, 200)}`)
    } catch (error) {
      const { message, cause } = error as Error
      const why = cause instanceof Error ? cause.message : message
      const way = 'start it, or name another by --api'
      throw new ConfigurationError('INVALID_CONFIGURATION', `the API at ${of.api} is not ready (${why}): ${way}`, error)
    }
    return new AttachedStage(of)
  }

  start = untouched
  stop = untouched
  kill = untouched
  freeze = untouched
  thaw = untouched
  cut = untouched
  heal = untouched
  wipe = untouched

  async [Symbol.asyncDispose](): Promise<void> {}
}

function untouched(): Promise<void> {
  return Promise.reject(new Error('an attached drill starts and ends nothing'))
}
