import type { Reporter, TestModule } from 'vitest/node'

/** Ends a run with one plain line of the counts, which a script can read. */
export default class CountReporter implements Reporter {
  onTestRunEnd(modules: readonly TestModule[]): void {
    const counts = { passed: 0, failed: 0, skipped: 0, pending: 0 }
    let broken = 0
    for (const module of modules) {
      // A file that does not load has no tests to count, and is a failure all the same.
      if (
        module.state() === 'failed' &&
        [...module.children.allTests()].every((test) => test.result().state !== 'failed')
      )
        broken++
      for (const test of module.children.allTests()) counts[test.result().state]++
    }
    process.on('exit', () => {
      process.stdout.write(
        `${counts.passed} passed, ${counts.failed + broken} failed, ${counts.skipped + counts.pending} skipped\n`,
      )
    })
  }
}
