import assert from 'node:assert/strict'
import { registerHooks } from 'node:module'
import { parseArgs } from 'node:util'
import { MUTATIONS } from './mutations.ts'

/**
 * node test/simulation/run.ts --from SEED --count SCHEDULES [--mutation NAME]: runs one schedule per seed. At the first
 * that fails it prints the seed and exits with 1; the same seed fails in the same way again.
 */
const { values } = parseArgs({
  options: {
    from: { type: 'string', default: '1' },
    count: { type: 'string', default: '1' },
    mutation: { type: 'string' },
  },
})
const [from, count] = [Number(values.from), Number(values.count)]
assert(Number.isInteger(from) && Number.isInteger(count) && count > 0, '--from and --count are integers')
if (values.mutation !== undefined) mutate(values.mutation)

// Nobody reads the stacks of the errors that disks and fences make by the thousand.
Error.stackTraceLimit = 0
// Read after the hook is there.
const { Schedule } = await import('./schedule.ts')
let steps = 0
for (let seed = from; seed < from + count; seed++) {
  const schedule = new Schedule(seed)
  try {
    await schedule.run()
  } catch (error) {
    process.stdout.write(`seed ${seed} failed after ${schedule.steps} steps: ${(error as Error).message}\n`)
    process.exit(1)
  }
  steps += schedule.steps
}
process.stdout.write(`${count} schedules from seed ${from} held, in ${steps} steps\n`)
process.exit(0)

/** Changes the text of a source file as it is read. */
function mutate(name: string): void {
  const mutation = MUTATIONS[name]
  assert(mutation !== undefined, `there is no mutation ${JSON.stringify(name)}`)
  const { file, find, replace } = mutation
  registerHooks({
    load(url, context, next) {
      const loaded = next(url, context)
      if (!url.endsWith(`/${file}`)) return loaded
      const parts = Buffer.from(loaded.source as Uint8Array)
        .toString()
        .split(find)
      assert.equal(parts.length, 2, `${file} must hold ${JSON.stringify(find)} once: bring the mutation up to date`)
      return { ...loaded, source: parts.join(replace) }
    },
  })
}
