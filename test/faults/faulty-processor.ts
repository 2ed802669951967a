/* oxlint-disable typescript/unbound-method -- methods are taken off their classes here, and called with `call` */
import { writeSync } from 'node:fs'
import { flushCompileCache } from 'node:module'
import { KafkaClaim } from '../../processor/log/kafka/claim/claim.ts'
import { KafkaLog } from '../../processor/log/kafka/kafka-log.ts'
import { type BrokerRequests, Network } from '../../processor/log/kafka/protocol/broker.ts'
import type { Partition } from '../../processor/log/log.ts'
import { Processor } from '../../processor/processor.ts'
import { LevelStore } from '../../processor/store/level-store.ts'
import type { Step } from '../kafka/steps.ts'

/**
 * `node main.ts` with one more thing to it: it kills itself with SIGKILL at the n-th passage of a step, as FAULT=`step@n`
 * says. The steps are put around the program from outside, at its wire to Kafka and at its ports: it knows nothing of them.
 */
const [wanted, passage] = (process.env.FAULT ?? '').split('@')
let left = Number(passage)

function pass(step: Step): void {
  if (step !== wanted || --left !== 0) return
  writeSync(2, `killed at ${step}\n`)
  process.kill(process.pid, 'SIGKILL')
}

const PRODUCE = 0
const ANSWERED: Partial<Record<keyof BrokerRequests, Step>> = {
  initProducerId: 'holder fenced',
  addPartitionsToTxn: 'partitions added',
  addOffsetsToTxn: 'offsets added',
  txnOffsetCommit: 'offset in transaction',
  endTxn: 'end answered',
}
const SENT: Partial<Record<keyof BrokerRequests, Step>> = { initProducerId: 'fence sent', endTxn: 'end sent' }

const { connect } = Network.prototype
Network.prototype.connect = async function (...to) {
  const connection = await connect.apply(this, to)
  const requests = new Proxy(connection.requests, {
    get(target, name: keyof BrokerRequests) {
      return async (...request: readonly unknown[]) => {
        const answer = Reflect.apply(target[name] as (...given: readonly unknown[]) => unknown, target, request)
        const sent = SENT[name]
        // By then the request is with the kernel, and the broker gets it.
        if (sent !== undefined) setImmediate(() => pass(sent))
        const given = await answer
        const answered = ANSWERED[name]
        if (answered !== undefined) pass(answered)
        return given
      }
    },
  })
  const send = connection.send.bind(connection)
  Object.defineProperty(connection, 'requests', { value: requests })
  connection.send = async (...request) => {
    const answer = await send(...request)
    if (request[0] === PRODUCE) pass('changelog produced')
    return answer
  }
  return connection
}

const owned = new Set<number>()
const followed = new Set<number>()
const { active, standby } = Processor.prototype
Processor.prototype.active = async function (claim, signal) {
  pass('claim taken')
  if (followed.has(claim.partition)) pass('standby promoted')
  owned.add(claim.partition)
  try {
    await active.call(this, claim, signal)
  } finally {
    owned.delete(claim.partition)
  }
}
Processor.prototype.standby = function (partition, ...rest) {
  followed.add(partition)
  return standby.call(this, partition, ...rest)
}

const { follow } = KafkaLog.prototype
KafkaLog.prototype.follow = async function* (of: Partition, ...rest) {
  for await (const batch of follow.call(this, of, ...rest)) {
    try {
      yield batch
    } finally {
      // Also when it was the last one of a restore, after which nobody comes back for more.
      if (of.topic === 'status') pass(owned.has(of.index) ? 'restoring' : 'following')
    }
  }
}

const { commit } = KafkaClaim.prototype
KafkaClaim.prototype.commit = async function (work) {
  pass('commit begun')
  const committed = await commit.call(this, work)
  pass('log committed')
  return committed
}

const { commit: store } = LevelStore.prototype
LevelStore.prototype.commit = async function (...write) {
  pass('store write begun')
  await store.apply(this, write)
  pass('store written')
}

// A process that is killed leaves nothing behind for the next one to start faster with.
flushCompileCache()
await import('../../main.ts')
