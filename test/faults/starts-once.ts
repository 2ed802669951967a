import { existsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

/** `node main.ts` with a fault: a process with stores starts once; started again, it ends at once. */
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
