import { unwatchFile, watchFile } from 'node:fs'
import { readFile } from 'node:fs/promises'
import type { Logger } from 'pino'
import { ConfigurationError, reasonOf } from '../contract/errors.ts'

/** How often a file is looked at, ms. Polling also sees files that are replaced, as secret mounts do. */
const LOOK_MS = 1_000
const MAX_BYTES = 64 * 1024 * 1024

/** A file, and the variable that names it. */
export interface NamedFile {
  readonly variable: string
  readonly path: string
}

export interface WatchOptions<T> {
  readonly files: readonly NamedFile[]
  /** Throws when the texts, in the order of `files`, cannot be used. */
  readonly parse: (texts: readonly string[]) => T | Promise<T>
  readonly logger: Logger
}

/** What some files say. They are read again when one changes. While they cannot be used, what they said before holds. */
export class WatchedFiles<T> implements Disposable {
  readonly #options: WatchOptions<T>
  readonly #look = (): void => void this.#reload()
  #value: T
  #reading = false
  #changed = false
  /** Called after each change. */
  onChange: (value: T) => void = () => {}

  private constructor(options: WatchOptions<T>, value: T) {
    this.#options = options
    this.#value = value
    for (const { path } of options.files) watchFile(path, { interval: LOOK_MS, persistent: false }, this.#look)
  }

  /** Rejects with ConfigurationError when the files cannot be used. */
  static async open<T>(options: WatchOptions<T>): Promise<WatchedFiles<T>> {
    try {
      return new WatchedFiles(options, await load(options))
    } catch (error) {
      throw new ConfigurationError('INVALID_CONFIGURATION', `${namesOf(options)}: ${reasonOf(error)}`, error)
    }
  }

  get value(): T {
    return this.#value
  }

  [Symbol.dispose](): void {
    for (const { path } of this.#options.files) unwatchFile(path, this.#look)
  }

  async #reload(): Promise<void> {
    this.#changed = true
    if (this.#reading) return
    this.#reading = true
    const { logger } = this.#options
    const files = namesOf(this.#options)
    while (this.#changed) {
      this.#changed = false
      try {
        this.#value = await load(this.#options)
        logger.info({ files }, 'files changed and were read again')
        this.onChange(this.#value)
      } catch (error) {
        logger.warn({ files, reason: reasonOf(error) }, 'files changed and cannot be used: what they said before holds')
      }
    }
    this.#reading = false
  }
}

async function load<T>({ files, parse }: WatchOptions<T>): Promise<T> {
  const texts = await Promise.all(files.map(({ path }) => readFile(path, 'utf8')))
  const long = files[texts.findIndex((text) => text.length > MAX_BYTES)]
  if (long !== undefined) throw new Error(`${long.path} has more than ${MAX_BYTES} bytes`)
  return await parse(texts)
}

function namesOf<T>({ files }: WatchOptions<T>): string {
  return files.map(({ variable, path }) => `${variable}=${path}`).join(', ')
}
