import { existsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setUpMalloc } from '../../processor/runtime/malloc.ts'

/** `node main.ts` with a fault: whoever has stores can be started once, and ends at once when it is started again. */
// Or main.ts would do so, which is no second start.
setUpMalloc()
const { DATA_DIR = '', INSTANCE_ID = 'all' } = process.env
if (DATA_DIR !== '') {
  const mark = join(DATA_DIR, `${INSTANCE_ID}-started`)
  if (existsSync(mark)) {
    process.stderr.write('there is\nno second start\n')
    process.exit(1)
  }
  writeFileSync(mark, '')
}

await import('../../main.ts')
