import { ConfigurationError } from '../../../processor/contract/errors.ts'
import type { ApiAddress, Stage } from './stage.ts'

const ANSWER_MS = 5_000

/** A cluster that somebody else runs: nothing of it is started or ended. */
export class AttachedStage implements Stage {
  readonly mqtt: Stage['mqtt']
  readonly api: ApiAddress
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
    const ask = (path: string): Promise<Response> =>
      fetch(of.api.url + path, { headers: of.api.headers, signal: AbortSignal.timeout(ANSWER_MS) })
    let partitions: Response
    try {
      const response = await ask('/readyz')
      if (!response.ok) throw new Error(`/readyz says ${response.status}: ${(await response.text()).slice(0, 200)}`)
      partitions = await ask('/v1/partitions')
      await partitions.arrayBuffer()
    } catch (error) {
      const { message, cause } = error as Error
      const why = cause instanceof Error ? cause.message : message
      const way = 'start it, or name another by --api'
      throw new ConfigurationError(
        'INVALID_CONFIGURATION',
        `the API at ${of.api.url} is not ready (${why}): ${way}`,
        error,
      )
    }
    if (partitions.status === 401 || partitions.status === 403) {
      const way = 'set AUTH_TOKEN to one with the scopes devices:read and ops:read'
      const told = `${partitions.status}: ${partitions.headers.get('www-authenticate') ?? ''}`
      throw new ConfigurationError(
        'INVALID_CONFIGURATION',
        `the API at ${of.api.url} asks for a token (${told}): ${way}`,
      )
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
