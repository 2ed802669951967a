/* oxlint-disable typescript/unbound-method -- methods are taken off their classes here, and called with `call` */
import { existsSync } from 'node:fs'
import { RocksLevel } from 'rocksdb-level'
import { Processor } from '../../processor/processor.ts'
import { pause } from '../../processor/runtime/pause.ts'

/**
 * `node main.ts` whose stores find no space as long as there is the file that FULL names. Its processors wait for a
 * thirtieth of the time only, and take that for all of it.
 */
const FASTER = 30
const FULL = process.env.FULL ?? ''

function refuse(): void {
  if (!existsSync(FULL)) return
  throw Object.assign(new Error('No space left on device'), { code: 'LEVEL_NO_SPACE' })
}

const { _put: put, _chainedBatch: chainedBatch } = RocksLevel.prototype
RocksLevel.prototype._put = async function (...of) {
  refuse()
  return put.apply(this, of)
}

RocksLevel.prototype._chainedBatch = function () {
  const batch = chainedBatch.call(this)
  const write = batch._write.bind(batch)
  batch._write = async (...of) => {
    refuse()
    await write(...of)
  }
  return batch
}

const open = Processor.open.bind(Processor)
const monotonic = (): number => performance.now() * FASTER
const sleep = (ms: number, signal: AbortSignal): Promise<void> => pause(ms / FASTER, signal)
Processor.open = (options) => open({ ...options, monotonic, sleep })

await import('../../main.ts')
