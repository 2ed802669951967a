import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { runDrillCommand } from '../../simulators/drill.ts'
import type { Kafka } from '../../simulators/kafka.ts'
import { SMALL_DRILL } from '../system/small-drill.ts'
import { kafkaMissing, startKafka } from './kafka.ts'

const SMALL = [...SMALL_DRILL, '--seconds', '4']
/** The dashboard of cluster.test.ts fails on any read that fails; how busy this machine is must not decide here. */
const READS = ['--failed-reads', '1000000']

const entry = (file: string) => ['--entry', fileURLToPath(new URL(file, import.meta.url))]

describe.skipIf(kafkaMissing !== undefined)('drills on Kafka', { timeout: 240_000 }, () => {
  let kafka: Kafka

  beforeAll(async () => {
    kafka = await startKafka()
  }, 180_000)

  afterAll(() => kafka?.[Symbol.asyncDispose]())

  async function drill(name: string, ...more: string[]) {
    let said = ''
    const code = await runDrillCommand([name, ...SMALL, ...READS, ...more], {
      stdout: { write: (text: string) => (said += text) },
      stderr: { write: (text: string) => (said += text) },
      environment: {},
      kafka,
      signal: new AbortController().signal,
    })
    return { code, said }
  }

  test.each(['kill', 'freeze', 'roll', 'scale', 'restore', 'broker'])('%s: every invariant holds', async (name) => {
    const { code, said } = await drill(name)
    expect(code, said).toBe(0)
    expect(said).toMatch(new RegExp(`${name}: all \\d+ invariants held, [1-9]`))
  })

  test('a product that commits an offset without its changelog is found out', async () => {
    const { code, said } = await drill('kill', ...entry('offset-alone.ts'))
    expect(code, said).toBe(1)
    expect(said).toMatch(/BROKEN {2}a reader of the changelog sees what the API answers/)
  })
})
