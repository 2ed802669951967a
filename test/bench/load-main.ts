import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { generateLoad } from '../../simulators/load/load.ts'

/**
 * The load generator as a process, so that it has a core of its own. Prints its report as one JSON line.
 * SIGINT and SIGTERM end the load early, with its report.
 * `--acknowledged FILE` writes the last acknowledged `seq` of every device there, as 32-bit numbers.
 * `--hold` keeps the connections open after the report, until another signal.
 */
const { values } = parseArgs({
  options: {
    host: { type: 'string', default: '127.0.0.1' },
    port: { type: 'string', default: '1883' },
    prefix: { type: 'string', default: 'load' },
    connections: { type: 'string', default: '100' },
    devices: { type: 'string', default: '100000' },
    window: { type: 'string', default: '64' },
    rate: { type: 'string' },
    messages: { type: 'string', default: 'Infinity' },
    seconds: { type: 'string', default: 'Infinity' },
    acknowledged: { type: 'string' },
    hold: { type: 'boolean', default: false },
  },
})

const stop = new AbortController()
process.once('SIGINT', () => stop.abort())
process.once('SIGTERM', () => stop.abort())

try {
  using load = await generateLoad(
    {
      host: values.host,
      port: Number(values.port),
      prefix: values.prefix,
      connections: Number(values.connections),
      devices: Number(values.devices),
      window: Number(values.window),
      ratePerSecond: values.rate === undefined ? undefined : Number(values.rate),
      messages: Number(values.messages),
      seconds: Number(values.seconds),
    },
    stop.signal,
  )
  if (values.acknowledged !== undefined) writeFileSync(values.acknowledged, load.lastAcknowledged)
  process.stdout.write(`${JSON.stringify(load.report)}\n`)
  if (values.hold) await Promise.race([once(process, 'SIGINT'), once(process, 'SIGTERM')])
} catch (error) {
  process.stderr.write(`load: ${(error as Error).message}\n`)
  process.exitCode = 1
}
