import { type MessagePort, parentPort, workerData } from 'node:worker_threads'
import { RocksLevel } from 'rocksdb-level'
import { databaseFailure } from '../contract/errors.ts'
import { Turns, yieldToOthers } from '../runtime/turns.ts'
import { LevelView } from '../store/level-view.ts'
import type { ScanAnswer, ScanJob } from './scan-threads.ts'
import { type Held, Searcher } from './searcher.ts'

/**
 * Devices of one read. With more at once many outlive a minor collection, and a scan takes twice as long (measured).
 */
const MAX_READ = 128
/** Milliseconds until an unused view is closed: it keeps table files that the writer has removed. */
const IDLE_MS = 2000

/** The stores of a folder as they were when it was opened. */
class View {
  readonly #db: RocksLevel<string, Buffer>
  readonly partitions: ReadonlyMap<number, LevelView>
  users = 0

  private constructor(db: RocksLevel<string, Buffer>, partitions: ReadonlyMap<number, LevelView>) {
    this.#db = db
    this.partitions = partitions
  }

  static async open(folder: string): Promise<View> {
    const db = new RocksLevel<string, Buffer>(folder, {
      keyEncoding: 'utf8',
      valueEncoding: 'buffer',
      readOnly: true,
    })
    await db.open()
    try {
      return new View(db, await LevelView.all(db))
    } catch (error) {
      await db.close()
      throw error
    }
  }

  holds(partition: number, { generation, reached }: Held): boolean {
    const part = this.partitions.get(partition)
    return part?.generation === generation && part.checkpoint.changelog >= reached
  }

  close(): Promise<void> {
    return this.#db.close()
  }
}

/** Opens views, and closes those that are not needed any more. */
class Views {
  readonly #folder: string
  #newest: View | undefined
  #opening: Promise<void> | undefined
  #idle: NodeJS.Timeout | undefined

  constructor(folder: string) {
    this.#folder = folder
  }

  /** Works on a view that holds the changelog up to `held.reached`, if the store does. */
  async use<T>(partition: number, held: Held, work: (view: LevelView) => Promise<T>) {
    const view = await this.#take(partition, held)
    try {
      const part = view.partitions.get(partition)
      if (part?.checkpoint.whole !== true) throw new Error(`the copy of partition ${partition} is not whole`)
      if (part.generation !== held.generation) throw new Error(`the copy of partition ${partition} was wiped`)
      const { input, changelog } = part.checkpoint
      return { ...(await work(part)), reached: { input, changelog } }
    } finally {
      view.users--
      this.#release(view)
    }
  }

  async #take(partition: number, held: Held): Promise<View> {
    for (let opened = false; ; ) {
      const view = this.#newest
      // A slice may have come from a copy elsewhere that was ahead of this one.
      if (view !== undefined && (opened || view.holds(partition, held))) {
        view.users++
        return view
      }
      // A view that is being opened may have begun too early. Then another one follows.
      opened = this.#opening === undefined
      await (this.#opening ??= this.#open())
    }
  }

  async #open(): Promise<void> {
    try {
      const old = this.#newest
      this.#newest = await View.open(this.#folder)
      if (old !== undefined) this.#release(old)
    } finally {
      this.#opening = undefined
    }
  }

  #release(view: View): void {
    if (view.users > 0) return
    if (view !== this.#newest) return void view.close()
    clearTimeout(this.#idle)
    this.#idle = setTimeout(() => {
      if (this.#newest !== view || view.users > 0) return
      this.#newest = undefined
      void view.close()
    }, IDLE_MS)
  }
}

/** A message transfers the whole buffer of each part, so parts are copied into buffers of their own. */
function packed(answer: ScanAnswer): readonly [ScanAnswer, ArrayBuffer[]] {
  if (answer.search === undefined) return [answer, []]
  const { items, ...rest } = answer.search
  const bytes = new Uint8Array(items.reduce((sum, { status }) => sum + status.byteLength, 0))
  let end = 0
  const moved = items.map(({ deviceId, status }) => {
    const start = end
    end += status.byteLength
    bytes.set(status, start)
    return { deviceId, status: bytes.subarray(start, end) }
  })
  return [{ search: { ...rest, items: moved } }, [bytes.buffer]]
}

function run(port: MessagePort, folder: string): void {
  const views = new Views(folder)
  const searcher = new Searcher(new Turns(), () => performance.now(), { maxRead: MAX_READ })
  const answer = async (job: ScanJob): Promise<ScanAnswer> => {
    const { search, summary } = job
    try {
      if (search !== undefined) {
        return { search: await views.use(search.partition, job, (view) => searcher.search(view, search)) }
      }
      return { summary: await views.use(summary.partition, job, (view) => searcher.summarize(view, summary)) }
    } catch (error) {
      return { error: databaseFailure(error).message }
    }
  }
  const reply = async (id: number, job: ScanJob): Promise<void> => {
    const [result, memory] = packed(await answer(job))
    port.postMessage([id, result], memory)
  }
  port.on('message', ([id, job]: [number, ScanJob]) => void reply(id, job))
}

yieldToOthers()
run(parentPort as MessagePort, workerData as string)
