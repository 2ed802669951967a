import { FencedError, type RetryableError } from '../../contract/errors.ts'
import type { Offset } from '../../contract/record.ts'
import type { Claim } from '../log.ts'
import type { ClaimPosition, EmbeddedWriter } from './writer.ts'

export class EmbeddedClaim implements Claim {
  readonly partition: number
  readonly epoch: number
  readonly start: { readonly input: Offset; readonly changelogEnd: Offset }
  readonly inputEnd: Offset
  readonly #writer: EmbeddedWriter
  readonly #inGroup: () => boolean
  #committing = false
  /** Fenced, or the outcome of a commit is not known. */
  over = false
  /** Called once, when `over` becomes true. */
  onOver: () => void = () => {}

  constructor(
    writer: EmbeddedWriter,
    partition: number,
    { epoch, input, changelogEnd }: ClaimPosition,
    inGroup: () => boolean,
  ) {
    this.#writer = writer
    this.#inGroup = inGroup
    this.partition = partition
    this.epoch = epoch
    this.start = { input, changelogEnd }
    this.inputEnd = writer.inputEnd(partition)
  }

  get held(): boolean {
    return !this.over && this.#inGroup()
  }

  async commit(work: Parameters<Claim['commit']>[0]): Promise<{ changelogEnd: Offset }> {
    if (this.over) throw new FencedError(this.partition, this.epoch)
    if (this.#committing) throw new Error(`partition ${this.partition}: a commit was asked for while one is under way`)
    this.#committing = true
    try {
      const { changelogEnd } = await this.#writer.commit(this.partition, this.epoch, work)
      return { changelogEnd }
    } catch (error) {
      this.#end(error as FencedError | RetryableError)
      throw error
    } finally {
      this.#committing = false
    }
  }

  #end(error: Error): void {
    // A record that is too large was refused before anything was written; the claim goes on.
    if ('code' in error && error.code === 'RECORD_TOO_LARGE') return
    this.over = true
    this.onOver()
  }
}
