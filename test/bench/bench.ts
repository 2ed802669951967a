import { writeFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { Stack, type StackOptions } from '../system/stack.ts'
import { type Figure, passes, table } from './figure.ts'
import { measureGet } from './get.ts'
import { loadDevices, measureIngest } from './ingest.ts'
import { describe, machine } from './machine.ts'
import { measureMillion } from './million.ts'
import { measureVisible } from './visible.ts'

const PARTS = ['ingest', 'visible', 'get', 'million'] as const
type Part = (typeof PARTS)[number]

const USAGE = `usage: npm run bench -- embedded [--only ${PARTS.join(',')}] [--quick] [--json FILE] [--profile FOLDER]
  --quick    small sizes, to see that it works: the figures mean little
  --profile  the CPU profiles (.cpuprofile) of the measured process go there`

const FULL = {
  messages: 4_000_000,
  devices: 100_000,
  seconds: 10,
  visibleSeconds: 20,
  pages: 1_000,
  million: 1_000_000,
}
const QUICK = { messages: 300_000, devices: 20_000, seconds: 2, visibleSeconds: 3, pages: 100, million: 100_000 }

interface Options {
  readonly parts: readonly Part[]
  readonly sizes: typeof FULL
  readonly json: string | undefined
  readonly stack: StackOptions
}

function parse(): Options | undefined {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      only: { type: 'string', default: PARTS.join(',') },
      quick: { type: 'boolean', default: false },
      json: { type: 'string' },
      profile: { type: 'string' },
    },
  })
  const parts = values.only.split(',') as Part[]
  const unknown = parts.find((part) => !PARTS.includes(part))
  if (positionals.length !== 1 || positionals[0] !== 'embedded' || unknown !== undefined) return undefined
  const { profile } = values
  const env: Record<string, string> =
    profile === undefined ? {} : { NODE_OPTIONS: `--cpu-prof --cpu-prof-dir=${profile}` }
  return { parts, sizes: values.quick ? QUICK : FULL, json: values.json, stack: { env } }
}

async function measure({ parts, sizes, stack: options }: Options): Promise<Figure[]> {
  const figures: Figure[] = []
  const report = (more: Figure[]): void => {
    figures.push(...more)
    process.stdout.write(`${table(more)}\n`)
  }
  if (parts.some((part) => part !== 'million')) {
    await using stack = await Stack.start(options)
    // The reads are of devices that the load left behind.
    const { messages, devices, seconds, visibleSeconds, pages } = sizes
    if (parts.includes('ingest')) report(await measureIngest(stack, { devices, messages }))
    else await loadDevices(stack, devices)
    if (parts.includes('visible')) report(await measureVisible(stack, { devices, seconds: visibleSeconds }))
    if (parts.includes('get')) report(await measureGet(stack, { devices, seconds, pages }))
    await stack.stop()
  }
  if (parts.includes('million')) report(await measureMillion(sizes.million, options))
  return figures
}

const options = parse()
if (options === undefined) {
  process.stderr.write(`${USAGE}\n`)
  process.exitCode = 2
} else {
  // The children end when this process does.
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(130))
  const on = machine()
  process.stdout.write(`${describe(on)}${options.sizes === QUICK ? 'QUICK sizes: these figures mean little\n' : ''}\n`)
  const figures = await measure(options)
  const missed = figures.filter((figure) => passes(figure) === false)
  process.stdout.write(`${missed.length === 0 ? 'every limit is kept' : `${missed.length} limits are MISSED`}\n`)
  if (options.json !== undefined) {
    const at = new Date().toISOString()
    const results = figures.map((figure) => ({ ...figure, pass: passes(figure) }))
    writeFileSync(
      options.json,
      `${JSON.stringify({ at, machine: on, sizes: options.sizes, figures: results }, null, 2)}\n`,
    )
  }
}
