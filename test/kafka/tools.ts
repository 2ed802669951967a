import { spawn } from 'node:child_process'
import { kafkaClasses } from '../../simulators/kafka/kafka.ts'

/** Runs one of Kafka's own tools, which knows nothing of Tidemark. Resolves with what it printed. */
export async function kafkaTool(brokers: string, name: string, args: readonly string[], input = ''): Promise<string> {
  const java = await kafkaClasses()
  const child = spawn('java', [
    '-Xmx128m',
    '-XX:TieredStopAtLevel=1',
    ...java,
    name,
    '--bootstrap-server',
    brokers,
    ...args,
  ])
  let output = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => (output += text))
  }
  child.stdin.end(input)
  const code = await new Promise((resolve) => child.once('close', resolve))
  if (code !== 0) throw new Error(`${name} ${args.join(' ')}: ${output}`)
  return output
}
