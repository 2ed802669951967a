/**
 * A process for the kill -9 test: appends numbered records and commits a claim over and over, and says on stdout what
 * was acknowledged, one line each: `append <number>` or `commit <next>`.
 */
import { pino } from 'pino'
import { Registry } from 'prom-client'
import { EmbeddedLog } from '../../../../processor/log/embedded/embedded-log.ts'
import type { Claim, Member } from '../../../../processor/log/log.ts'

const [folder = '', first = '0'] = process.argv.slice(2)
const log = await EmbeddedLog.open({
  folder,
  partitions: 2,
  logger: pino({ level: 'silent' }),
  registry: new Registry(),
})
const say = (line: string) => process.stdout.write(`${line}\n`)

async function append(): Promise<never> {
  for (let n = Number(first); ; n++) {
    const records = Array.from({ length: 20 }, (_, i) => ({
      key: `key-${i}`,
      value: Buffer.from(`${n}`),
      timestamp: n,
    }))
    await log.append('telemetry', records)
    say(`append ${n}`)
  }
}

async function commit(claim: Claim): Promise<void> {
  for (let next = claim.start.input + 1; ; next++) {
    const changelog = [{ key: 'k', value: Buffer.from(`${next}`), timestamp: next }]
    await claim.commit({ changelog, deadLetters: changelog, next })
    say(`commit ${claim.partition} ${next}`)
  }
}

const member: Member = {
  instance: 'm',
  endpoint: 'm',
  positions: () => new Map(),
  active: commit,
  standby: () => new Promise(() => {}),
}
say('ready')
await Promise.race([append(), log.join(member, new AbortController().signal)])
