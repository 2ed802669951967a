/* oxlint-disable typescript/unbound-method -- the method is taken off its class here, and called with `call` */
import { setTimeout as delay } from 'node:timers/promises'
import { FencedError } from '../../processor/contract/errors.ts'
import { KafkaClaim } from '../../processor/log/kafka-claim.ts'

/**
 * `node main.ts` with a mistake in it: who is fenced takes the claim again and commits what he had. Each batch waits a
 * little before its commit, so that one who is frozen is frozen with something to commit.
 */
const HELD_MS = 100
const RETAKE_MS = 10_000

const take = KafkaClaim.take.bind(KafkaClaim)
const contexts = new WeakMap<KafkaClaim, Parameters<typeof take>[0]>()
KafkaClaim.take = async (context, partition, signal) => {
  const claim = await take(context, partition, signal)
  contexts.set(claim, context)
  return claim
}

const { commit } = KafkaClaim.prototype
KafkaClaim.prototype.commit = async function (work) {
  await delay(HELD_MS)
  try {
    return await commit.call(this, work)
  } catch (error) {
    const context = contexts.get(this)
    if (!(error instanceof FencedError) || context === undefined) throw error
    const again = await take(context, this.partition, AbortSignal.timeout(RETAKE_MS))
    return await commit.call(again, work)
  }
}

await import('../../main.ts')
