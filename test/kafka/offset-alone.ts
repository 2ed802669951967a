/* oxlint-disable typescript/unbound-method -- the method is taken off its class here, and called with `call` */
import { KafkaClaim } from '../../processor/log/kafka-claim.ts'

/** `node main.ts` with a mistake in it: now and then an offset is committed without the changelog that belongs to it. */
const EVERY = 20
let commits = 0

const { commit } = KafkaClaim.prototype
KafkaClaim.prototype.commit = function (work) {
  return commit.call(this, ++commits % EVERY === 0 ? { ...work, changelog: [] } : work)
}

await import('../../main.ts')
