import { fileURLToPath } from 'node:url'
import { defineConfig } from 'vitest/config'
import CountReporter from './count-reporter.ts'
import SlowestFirst from './sequencer.ts'

/** Tests of minutes (kill loops, drills, histories, fuzzers) are named `*.long.test.ts`: `npm run test:long` runs them. */
export default defineConfig({
  test: {
    root: fileURLToPath(new URL('..', import.meta.url)),
    include: ['test/**/*.test.ts'],
    // Silent but for what failed.
    reporters: ['minimal', new CountReporter()],
    pool: 'forks',
    // Two cores: more workers only make timeouts out of contention.
    maxWorkers: 2,
    sequence: { sequencer: SlowestFirst },
    setupFiles: ['test/patience.ts'],
    // The default of 1 s is too little for a slow machine.
    expect: { poll: { timeout: 20_000 } },
    testTimeout: 30_000,
    hookTimeout: 30_000,
  },
})
