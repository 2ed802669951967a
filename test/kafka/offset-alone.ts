/* oxlint-disable typescript/unbound-method -- the method is taken off its class here, and called with `call` */
import { KafkaClaim } from '../../processor/log/kafka/claim/claim.ts'

/**
 * `node main.ts` with a mistake in it: for some devices, input is committed without the changelog that belongs to it.
 * For all of a commit now and then it would be no test: what a device reports next makes up for it.
 */
const LEFT_OUT = /7$/

const { commit } = KafkaClaim.prototype
KafkaClaim.prototype.commit = function (work) {
  return commit.call(this, { ...work, changelog: work.changelog.filter(({ key }) => !LEFT_OUT.test(key ?? '')) })
}

await import('../../main.ts')
